//! Of `opm::sys::pidfd`.
use opm::process::Exit;
use opm::sys::pidfd::*;
use opm::sys::{Errno, Reach};

#[test]
fn a_child_is_held_by_its_number_until_it_is_reaped() {
    let mut command = std::process::Command::new("sleep");
    #[expect(clippy::zombie_processes, reason = "it is waited for by its number")]
    let child = command.arg("1000").spawn().unwrap();
    let held = Held::Child(child.id().cast_signed());
    assert_eq!((held.is_dead(), held.wait(true)), (Ok(false), Ok(None)));
    held.signal(libc::SIGKILL, Reach::Process).unwrap();
    while held.is_dead() == Ok(false) {
        std::thread::yield_now();
    }
    assert_eq!(held.wait(false), Ok(Some(Exit::Signal(libc::SIGKILL))));
    assert_eq!(held.wait(true), Ok(Some(Exit::Signal(libc::SIGKILL))));
    assert_eq!(held.wait(true), Err(Errno::CHILD));
}
