//! Of `opm::process`.
use opm::process::*;

#[test]
fn an_inode_outweighs_an_equal_start_time() {
    let old = Identity { pid: 7, start_time: 100, inode: 41 };
    assert!(!old.is_same(&Identity { inode: 42, ..old }));
    assert!(old.is_same(&Identity { start_time: 0, ..old }));
}

#[test]
fn a_pid_alone_is_no_identity() {
    let bare = Identity { pid: 7, ..Identity::default() };
    assert!(!bare.is_same(&bare));
}
