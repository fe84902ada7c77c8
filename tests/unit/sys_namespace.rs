//! Of `opm::sys::namespace`.
use opm::process::Namespace;
use opm::sys::namespace::*;
use opm::sys::own_pid;

#[test]
fn a_process_names_its_own_namespace_in_two_ways() {
    let own = of_self();
    assert_ne!(own.inode, 0);
    assert_eq!(inode(own_pid()), Ok(own.inode));
    if own.id != 0 {
        assert_eq!(is_alive(own), Some(true));
        assert_eq!(is_alive(Namespace { id: u64::MAX / 2, ..own }), Some(false));
    }
}
