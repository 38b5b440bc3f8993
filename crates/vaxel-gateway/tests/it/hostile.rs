//! What fuzzing feeds with hostile bytes, fed with the corpus: so that its targets keep up with the code
//! also where nobody has the nightly compiler that fuzzing needs.

use std::{collections::BTreeSet, fs, path::PathBuf};

#[path = "../../../../fuzz/targets/cursor.rs"]
mod cursor;
#[path = "../../../../fuzz/targets/envelope.rs"]
mod envelope;
#[path = "../../../../fuzz/targets/headers.rs"]
mod headers;
#[path = "../../../../fuzz/targets/sealed.rs"]
mod sealed;
#[path = "../../../../fuzz/targets/sse.rs"]
mod sse;
#[path = "../../../../fuzz/targets/translation.rs"]
mod translation;

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 6] = [
    ("cursor", cursor::check),
    ("envelope", envelope::check),
    ("headers", headers::check),
    ("sealed", sealed::check),
    ("sse", sse::check),
    ("translation", translation::check),
];

fn fuzz(folder: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("../../fuzz").join(folder)
}

#[test]
fn everything_in_the_corpus_passes_its_target() {
    for (name, check) in TARGETS {
        let files = fs::read_dir(fuzz("corpus").join(name)).unwrap();
        let mut fed = 0;
        for file in files {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            // A message that breaks off anywhere is one, too.
            for end in 0..=bytes.len() {
                check(&bytes[..end]);
                fed += 1;
            }
        }
        assert!(fed > 1, "`{name}` has no corpus");
    }
}

#[test]
fn no_target_is_forgotten() {
    let files = fs::read_dir(fuzz("fuzz_targets")).unwrap();
    let found: BTreeSet<String> = files
        .map(|file| {
            file.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let known: BTreeSet<String> = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(found, known);
}
