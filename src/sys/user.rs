//! Users and groups; and becoming another user: root's command in a user's home acts as that user.
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
    pub shell: String,
}

impl User {
    /// The first one of whom `is_it` is true.
    pub fn find(is_it: impl Fn(&Self) -> bool) -> Option<Self> {
        let text = std::fs::read_to_string("/etc/passwd").ok()?;
        text.lines().filter_map(Self::parse).find(is_it)
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell, ..] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let [name, home, shell] = [name, home, shell].map(str::to_owned);
        Some(Self { name, uid, gid, home, shell })
    }
}

/// /etc/group; nothing where there is none.
pub fn group_file() -> String {
    std::fs::read_to_string("/etc/group").unwrap_or_default()
}

/// The group of that name or number.
pub fn group(name: &str, text: &str) -> Option<u32> {
    let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = entries.find(|fields| fields.first() == Some(&name) && fields.len() > 2);
    number(named.map_or(name, |fields| fields[2]))
}

/// A uid or gid; the last number means none.
pub fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// The groups that have `name` for a member.
pub fn groups_of(name: &str, text: &str) -> Vec<u32> {
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
        groups.extend(groups_of(&user.name, &group_file()));
    }
    let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Of the thread: a command has one.
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
#[path = "../../tests/inner/sys_user.rs"]
mod tests;
