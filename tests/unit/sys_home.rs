//! Of `opm::sys::home`.
use opm::sys::Errno;
use opm::sys::home::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_directory_of_many_is_taken_only_if_nothing_is_in_it() {
    let path = std::env::temp_dir().join(format!("opm-common-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    let common = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(&path, common.clone()).unwrap();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    std::fs::write(path.join("somebody's"), "").unwrap();
    let open = || Home::open(path.to_str().unwrap()).map(drop);
    assert_eq!((open(), mode()), (Err(Errno::NOTEMPTY), 0o1777));
    std::fs::remove_file(path.join("somebody's")).unwrap();
    std::fs::write(path.join("daemon.log"), "").unwrap();
    assert_eq!((open(), mode()), (Ok(()), 0o700));
    // A home that somebody has opened to others, with all that a home has.
    for name in ["lock", "journal"] {
        std::fs::write(path.join(name), "").unwrap();
    }
    std::fs::set_permissions(&path, common).unwrap();
    assert_eq!((open(), mode()), (Ok(()), 0o700));
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_home_made_by_several_at_once_is_there_for_all_of_them() {
    let top = std::env::temp_dir().join(format!("opm-home-{}", std::process::id()));
    for round in 0..200 {
        let path = top.join(format!("{round}/a/b/c"));
        let path = path.to_str().unwrap();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                Home::open(path).map(drop)
            };
            let all: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            for one in all {
                assert_eq!(one.join().unwrap(), Ok(()), "round {round}");
            }
        });
    }
    std::fs::remove_dir_all(top).unwrap();
}
