use std::sync::LazyLock;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

const PASSPHRASE: &str = "correct horse";
static RECIPE: LazyLock<(Recipe, StreamKey)> =
    LazyLock::new(|| Recipe::invent(PASSPHRASE).unwrap());

fn key() -> &'static StreamKey {
    &RECIPE.1
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut writer = SealedWriter::new(Vec::new(), key(), b"head");
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn opened(sealed: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    SealedReader::new(sealed, key(), b"head").read_to_end(&mut plain)?;
    Ok(plain)
}

#[test]
fn a_recipe_makes_the_same_key_of_the_same_passphrase_only() {
    let (recipe, key) = Recipe::invent(PASSPHRASE).unwrap();
    let mut writer = SealedWriter::new(Vec::new(), &key, b"");
    writer.write_all(b"secret").unwrap();
    let bytes = writer.finish().unwrap();
    let text = serde_json::to_string(&recipe).unwrap();
    let recipe: Recipe = serde_json::from_str(&text).unwrap();
    let mut plain = Vec::new();
    let key = recipe.follow(PASSPHRASE).unwrap();
    SealedReader::new(&bytes[..], &key, b"")
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(plain, b"secret");
    let wrong = recipe.follow("correct horses");
    assert!(matches!(wrong, Err(Error::WrongPassphrase)), "{wrong:?}");
}

#[test]
fn short_passphrases_and_greedy_recipes_are_refused() {
    assert!(matches!(
        Recipe::invent("1234567"),
        Err(Error::ShortPassphrase { .. })
    ));
    let (recipe, _) = &*RECIPE;
    let greedy = [
        Recipe {
            memory: u32::MAX,
            ..recipe.clone()
        },
        Recipe {
            passes: u32::MAX,
            ..recipe.clone()
        },
        Recipe {
            lanes: 17,
            ..recipe.clone()
        },
        Recipe {
            memory: 0,
            ..recipe.clone()
        },
        Recipe {
            salt: "?".to_owned(),
            ..recipe.clone()
        },
        Recipe {
            kdf: "md5".to_owned(),
            ..recipe.clone()
        },
    ];
    for recipe in greedy {
        assert!(
            matches!(recipe.follow(PASSPHRASE), Err(Error::BadRecipe)),
            "{recipe:?}"
        );
    }
}

#[test]
fn streams_of_every_length_around_a_chunk_open_whole_and_not_without_their_end() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5] {
        let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
        let whole = sealed(&plain);
        assert_eq!(opened(&whole).unwrap(), plain);
        // Also where one chunk ends and the next begins.
        for cut in [0, TAG, CHUNK + TAG, 2 * (CHUNK + TAG)] {
            if cut < whole.len() {
                assert!(opened(&whole[..cut]).is_err(), "{length} cut at {cut}");
            }
        }
    }
}

#[test]
fn chunks_do_not_change_places_and_another_head_opens_nothing() {
    let mut bytes = sealed(&vec![1; 2 * CHUNK + 5]);
    assert!(
        SealedReader::new(&bytes[..], key(), b"other")
            .read(&mut [0])
            .is_err()
    );
    let (first, rest) = bytes.split_at_mut(CHUNK + TAG);
    first.swap_with_slice(&mut rest[..CHUNK + TAG]);
    assert!(opened(&bytes).is_err());
}

proptest! {
    #[test]
    fn what_is_cut_or_changed_anywhere_does_not_open(
        plain in any::<Vec<u8>>(), at in any::<proptest::sample::Index>(), flip in 1..=255_u8,
    ) {
        let whole = sealed(&plain);
        prop_assert_eq!(opened(&whole).unwrap(), plain);
        let at = at.index(whole.len());
        prop_assert!(opened(&whole[..at]).is_err());
        let mut changed = whole;
        changed[at] ^= flip;
        prop_assert!(opened(&changed).is_err());
    }
}
