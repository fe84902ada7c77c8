//! Of `cli::launch`: compiled with the library, for it uses what is private there.
use super::*;
use crate::wire::code;
use rustix::fs::{FlockOperation, flock};
use std::os::unix::net::UnixListener;

/// A home of one test, and a daemon in it that was launched and is dead.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("opm-{name}-{}", std::process::id()));
        home::create(&home).unwrap();
        std::fs::write(home.join("daemon.log"), "old\nopm: no room\n\n").unwrap();
        Self(home)
    }

    /// Holds the home's lock until it is dropped.
    fn lock(&self) -> std::fs::File {
        let file = std::fs::File::create(self.0.join("lock")).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        file
    }

    fn wait(&self, told: u64, contested: bool) -> Result<Option<Connection>, Failure> {
        wait_for(&self.0, None, told, contested)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_daemon_that_died_is_reported_with_the_last_line_of_its_log() {
    let scratch = Scratch::new("died");
    let failure = scratch.wait(4, false).unwrap_err();
    assert_eq!(failure.text, "daemon: ended before it answered: no room");
    assert_eq!(failure.code, code::UNREACHABLE);
    let silent = scratch.wait(18, false).unwrap_err().text;
    std::fs::write(scratch.0.join("daemon.log"), "at opm: exit 5: no: not here\n").unwrap();
    let refused = scratch.wait(0, false).unwrap_err();
    assert_eq!((refused.code, refused.text.as_str()), (5, "no: not here"));
    assert!(silent.starts_with("daemon: ended before it answered (see "), "{silent}");
}

#[test]
fn while_another_daemon_holds_the_lock_its_answer_or_its_end_is_waited_for() {
    let scratch = Scratch::new("locked");
    let lock = scratch.lock();
    let wait = |contested, act: Box<dyn FnOnce()>| {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| scratch.wait(0, contested).unwrap().is_some());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiter.is_finished(), "the lock is held and nobody answers");
            act();
            waiter.join().unwrap()
        })
    };
    let socket = scratch.0.join("opm.sock");
    let bind = || std::mem::forget(UnixListener::bind(&socket).unwrap());
    assert!(wait(false, Box::new(bind)));
    std::fs::remove_file(&socket).unwrap();
    assert!(!wait(true, Box::new(|| drop(lock))), "none: launch again");
}
