//! Becoming another user: root's command in a user's home acts as that user.
//!
//! Users and groups are read from their files, not asked of the C library: in a static binary
//! that would load code of another one, and a container may have neither.
use super::Result;
use rustix::process::{Gid, Uid};

/// An entry of /etc/passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

impl User {
    /// The first one of whom `is_it` is true.
    pub fn find(is_it: impl Fn(&Self) -> bool) -> Option<Self> {
        let text = std::fs::read_to_string("/etc/passwd").ok()?;
        text.lines().filter_map(Self::parse).find(is_it)
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        Some(Self { name: name.to_owned(), uid, gid, home: home.to_owned() })
    }
}

/// The groups that have `name` for a member.
fn groups_of(name: &str, text: &str) -> Vec<u32> {
    let gid = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            return None;
        };
        members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
    };
    text.lines().filter_map(gid).collect()
}

/// Becomes the user `uid` for good, with the groups that it has by /etc/passwd and /etc/group; one
/// that has no entry gets `gid` alone. Errors: EPERM: we may not. EINVAL: there is no such user in
/// this user namespace.
pub fn become_user(uid: u32, gid: u32) -> Result<()> {
    let user = User::find(|user| user.uid == uid);
    let gid = user.as_ref().map_or(gid, |user| user.gid);
    let mut groups = vec![gid];
    if let Some(user) = user {
        let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
        groups.extend(groups_of(&user.name, &text));
    }
    let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Of the thread: a command has one.
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
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
    }
}
