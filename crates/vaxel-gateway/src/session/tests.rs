use std::sync::Barrier;

use vaxel_auth::seal::RootKey;
use vaxel_core::time::Clock;

use super::*;

fn sessions(root: &RootKey) -> Sessions {
    let sealer = Arc::new(Sealer::new(root, "test"));
    Sessions::new(sealer, Arc::default(), 10, Duration::from_mins(1))
}

fn open(sessions: &Sessions, now: Timestamp) -> Arc<str> {
    let nothing = RawValue::from_string("{}".to_owned()).unwrap();
    let opening = Opening {
        revision: Revision::LATEST_LEGACY,
        principal: &Principal::unguarded(),
        capabilities: &nothing,
        info: &nothing,
    };
    sessions.open(&opening, now).unwrap()
}

#[test]
fn requests_that_take_up_a_session_at_once_get_the_same_one() {
    let (root, now) = (RootKey::ephemeral(), Clock::system().now());
    let token = open(&sessions(&root), now);
    for _ in 0..200 {
        // Another process, which knows nothing of the session yet.
        let later = sessions(&root);
        let together = Barrier::new(4);
        let found: Vec<Arc<Session>> = std::thread::scope(|scope| {
            let find = || {
                together.wait();
                later.find(&token, &Principal::unguarded(), now).unwrap()
            };
            let threads = [(); 4].map(|()| scope.spawn(find));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert!(found.iter().all(|one| Arc::ptr_eq(one, &found[0])));
    }
}

#[test]
fn a_session_ends_for_ever_and_one_that_is_too_old_is_not_taken_up() {
    let (root, now) = (RootKey::ephemeral(), Clock::system().now());
    let first = sessions(&root);
    let (ended, kept) = (open(&first, now), open(&first, now));
    first.end(&ended);
    let find = |sessions: &Sessions, token: &str, now| {
        sessions.find(token, &Principal::unguarded(), now).is_ok()
    };
    let later = sessions(&root);
    later.remembered.restore(first.remembered.take());
    assert!(!find(&first, &ended, now) && !find(&later, &ended, now));
    assert!(find(&later, &kept, now));
    let much_later = sessions(&root);
    assert!(!find(
        &much_later,
        &kept,
        now.plus(LIFE + Duration::from_secs(1))
    ));
}
