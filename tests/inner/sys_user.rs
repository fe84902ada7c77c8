//! Of `sys::user`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn users_and_their_groups_are_read_from_their_files() {
    let user = User::parse("app:x:1000:1001:A, B:/home/app:/bin/sh").unwrap();
    assert_eq!((user.uid, user.gid, user.home.as_str()), (1000, 1001, "/home/app"));
    for odd in ["", "# a", "+::::::", "app:x:one:1:::", "app:x:1"] {
        assert_eq!(User::parse(odd), None, "{odd}");
    }
    let text = "root:x:0:\nlog:x:4:syslog,app\nwww:x:33:apple\nodd:x\ndocker:x:99:app\n";
    assert_eq!(groups_of("app", text), [4, 99]);
    let found = ["log", "99", "7", "odd", "none", "-1", "4294967295"].map(|it| group(it, text));
    assert_eq!(found, [Some(4), Some(99), Some(7), None, None, None, None]);
}
