//! Who listens on a port.
use opm::sys::sockets::*;

#[test]
fn who_listens_is_found_and_nobody_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let found = listeners(port).unwrap();
    let own = found.iter().find(|(pid, _)| *pid == opm::sys::own_pid());
    assert_eq!(own.unwrap().1, std::env::args().collect::<Vec<_>>());
    drop(listener);
    // Another test's child may have it between its fork and its exec.
    let found = listeners(port).unwrap_or_default();
    assert!(found.iter().all(|(pid, _)| *pid != opm::sys::own_pid()), "{found:?}");
}
