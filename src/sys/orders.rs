//! What a child is ordered to become before its exec: whose it is, and what it may use.
//!
//! Unlike what it merely has from its definer ([`super::attributes`]), what the kernel refuses here
//! is the end of the launch; and of a trial before it, while what runs can still go on.
use super::attributes::{RESOURCES, set_nice};
use super::block::Blocks;
use super::exec_pipe::{self, ExecPipe};
use super::raw::{self, numbers, prctl};
use super::spawn::{Shares, clone_or_fork};
use super::table::Table;
use super::user::{self, User};
use super::{Errno, Launch, Stage};
use crate::service::options::{Exec, Key};
use crate::service::resources::CpuSet;
use rustix::fd::AsRawFd;
use rustix::process::{WaitOptions, getegid, geteuid, waitpid};
use std::ffi::{CStr, c_int};

/// Most supplementary groups.
const GROUPS_MAX: usize = 64;
/// From linux/ioprio.h.
const IOPRIO_WHO_PROCESS: usize = 1;
/// A child's own score, by which the OOM killer goes.
const OOM_SCORE_FILE: &CStr = c"/proc/self/oom_score_adj";

/// Where a launch fails whose option of this key the kernel refuses.
pub(super) const fn option(key: Key) -> Stage {
    Stage::Option(key as u8)
}

/// Numbers for the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// What it writes to in order to be in its cgroup.
    pub leaf: Option<c_int>,
    nice: Option<i32>,
    /// A decimal number, and blanks.
    oom_score: Option<[u8; 5]>,
    limits: [Option<[u64; 2]>; RESOURCES.len()],
    io_class: Option<u16>,
    cpus: Option<CpuSet>,
    uid: Option<u32>,
    gid: Option<u32>,
    /// So many of them, and the option that they are from.
    groups: Option<([u32; GROUPS_MAX], usize, Stage)>,
    cap_drop: u64,
    cap_keep: Option<u64>,
    no_new_privs: bool,
}

/// Whose a child is to be.
#[derive(Clone, Debug, Default)]
pub struct Who {
    pub orders: Orders,
    /// What login(1) would have set for its user.
    pub env: Vec<(&'static str, String)>,
}

impl Who {
    /// What `exec` asks for. Names are looked up now. Errors: ENOENT: there is no such user or
    /// group. E2BIG: too many groups.
    pub fn of(exec: &Exec) -> Result<Self, (Stage, Errno)> {
        let oom_score = exec.oom_score.map(|score| {
            let mut text = [b' '; 5];
            text.iter_mut().zip(score.0.to_string().bytes()).for_each(|(to, from)| *to = from);
            text
        });
        let mut orders = Orders {
            nice: exec.nice.map(|nice| nice.0),
            oom_score,
            io_class: exec.io_class.as_ref().map(|class| class.value.0),
            cpus: exec.cpu_affinity.as_ref().map(|cpus| *cpus.value.0),
            cap_drop: exec.cap_drop.as_ref().map_or(0, |caps| caps.value.0),
            cap_keep: exec.cap_keep.as_ref().map(|caps| caps.value.0),
            no_new_privs: exec.no_new_privs,
            ..Orders::default()
        };
        for (at, pair) in exec.limit.iter().flat_map(|limits| &limits.value.0) {
            orders.limits[*at] = Some(*pair);
        }
        // The files of users are not read for nothing.
        let named = exec.user.is_some() || exec.group.is_some() || !exec.groups.is_empty();
        let user = if named { orders.take_user(exec)? } else { None };
        Ok(Self { orders, env: user.map_or(Vec::new(), env_of) })
    }
}

/// Of what a user has no entry for, nothing.
fn env_of(user: User) -> Vec<(&'static str, String)> {
    let User { name, home, shell, .. } = user;
    let pairs = [("HOME", home), ("LOGNAME", name.clone()), ("SHELL", shell), ("USER", name)];
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

impl Orders {
    /// User and groups, by name or number; gives the user's entry.
    fn take_user(&mut self, exec: &Exec) -> Result<Option<User>, (Stage, Errno)> {
        let wrong = |key, errno| (option(key), errno);
        let unknown = |key| wrong(key, Errno::NOENT);
        let file = user::group_file();
        let mut found = None;
        if let Some(user) = &exec.user {
            let (name, group) = user.text.split_once(':').unwrap_or((&user.text, ""));
            found = User::find(|user| user.name == name);
            found = found.or_else(|| User::find(|user| Some(user.uid) == user::number(name)));
            self.uid = found.as_ref().map(|user| user.uid).or_else(|| user::number(name));
            // One without an entry is in the group of its own number, as is usual for users.
            self.gid = found.as_ref().map(|user| user.gid).or(self.uid);
            if !group.is_empty() {
                self.gid = user::group(group, &file);
            }
            self.uid.zip(self.gid).ok_or(unknown(Key::user))?;
        }
        if let Some(group) = &exec.group {
            self.gid = Some(user::group(&group.text, &file).ok_or(unknown(Key::group))?);
        }
        let listed = exec.groups.iter().map(|group| user::group(&group.text, &file));
        let mut all = listed.collect::<Option<Vec<_>>>().ok_or(unknown(Key::groups))?;
        // Only root may set groups, be it to what they are.
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        if uid != 0 && self.uid == Some(uid) && self.gid == Some(gid) && exec.groups.is_empty() {
            (self.uid, self.gid) = (None, None);
            return Ok(found);
        }
        if exec.groups.is_empty() {
            let names = found.iter().flat_map(|user| user::groups_of(&user.name, &file));
            all = self.gid.into_iter().chain(names).collect();
        }
        if exec.user.is_some() || !exec.groups.is_empty() {
            let mut groups = [0; GROUPS_MAX];
            let places = groups.get_mut(..all.len()).ok_or(wrong(Key::groups, Errno::TOOBIG))?;
            places.copy_from_slice(&all);
            let stage = option(if exec.groups.is_empty() { Key::user } else { Key::groups });
            self.groups = Some((groups, all.len(), stage));
        }
        Ok(found)
    }

    /// The user to become, if it is another.
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Whether a child that shares the daemon's memory can't carry them out: the kernel keeps the
    /// OOM killer's score with the memory, and makes that undumpable with a change of credentials.
    pub fn needs_own_memory(&self) -> bool {
        self.oom_score.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.groups.is_some()
            || self.cap_drop != 0
            || self.cap_keep.is_some()
    }

    /// Lets a child carry them out that does nothing else. Errors: what the kernel refuses; or that
    /// there can be no child.
    pub fn try_out(&self, blocks: &mut Blocks) -> Result<(), (Stage, Errno)> {
        if *self == Self::default() {
            return Ok(());
        }
        let fork_failed = |errno| (Stage::Fork, errno);
        let (mut pipe, report) = ExecPipe::new(false).map_err(fork_failed)?;
        let block = blocks.take(size_of::<Trial>() * 2).map_err(fork_failed)?;
        let trial = block.put(Trial { orders: *self, report: report.as_raw_fd() });
        let trial = trial.map_err(fork_failed)?;
        // SAFETY: `try_alone` keeps the rules of `raw`; its child has a copy of the block.
        let child = unsafe { clone_or_fork(block, try_alone, trial, Shares::Nothing) };
        let (pid, _pidfd) = child.map_err(fork_failed)?;
        // It does a few calls that don't wait for anything.
        waitpid(rustix::process::Pid::from_raw(pid), WaitOptions::empty()).map_err(fork_failed)?;
        match pipe.look(&mut Table::default()) {
            Launch::Failed(stage, errno) => Err((stage, errno)),
            Launch::Pending | Launch::Done => Ok(()),
        }
    }

    /// In a child, by the rules of [`raw`]. What takes a privilege comes before that is given up.
    pub(super) fn carry_out(&self) -> Result<(), (Stage, c_int)> {
        let refused = |stage| move |errno| (stage, errno);
        // Before there may be no descriptor left for it.
        if let Some(score) = &self.oom_score {
            let file = raw::open(OOM_SCORE_FILE, libc::O_WRONLY, 0);
            file.and_then(|file| raw::write(file, score))
                .map_err(refused(option(Key::oom_score)))?;
        }
        for (resource, pair) in RESOURCES.into_iter().zip(&self.limits) {
            if let Some(pair) = pair {
                raw::limit(resource as u32, Some(pair)).map_err(refused(option(Key::limit)))?;
            }
        }
        if let Some(nice) = self.nice {
            set_nice(nice).map_err(refused(option(Key::nice)))?;
        }
        if let Some(class) = self.io_class {
            let args = [IOPRIO_WHO_PROCESS, 0, usize::from(class)];
            numbers(libc::SYS_ioprio_set, args).map_err(refused(option(Key::io_class)))?;
        }
        if let Some(cpus) = &self.cpus {
            raw::set_affinity(cpus).map_err(refused(option(Key::cpu_affinity)))?;
        }
        self.become_user()?;
        if self.no_new_privs {
            prctl([libc::PR_SET_NO_NEW_PRIVS, 1, 0]).map_err(refused(option(Key::no_new_privs)))?;
        }
        Ok(())
    }

    fn become_user(&self) -> Result<(), (Stage, c_int)> {
        let refused = |stage| move |errno| (stage, errno);
        let (keep, drop) = (option(Key::cap_keep), option(Key::cap_drop));
        let caps = if self.cap_keep.is_some() { keep } else { drop };
        let kept = self.cap_keep.unwrap_or(u64::MAX) & !self.cap_drop;
        let has_caps = kept != u64::MAX || self.cap_keep.is_some();
        let (user, group) = (option(Key::user), option(Key::group));
        let who = if self.uid.is_some() { user } else { group };
        if let Some((groups, count, stage)) = &self.groups {
            raw::set_groups(groups.get(..*count).unwrap_or(&[])).map_err(refused(*stage))?;
        }
        if let Some(gid) = self.gid {
            numbers(libc::SYS_setresgid, [gid as usize; 3]).map_err(refused(who))?;
        }
        if has_caps {
            limit_capabilities(kept).map_err(refused(caps))?;
            prctl([libc::PR_SET_KEEPCAPS, 1, 0]).map_err(refused(caps))?;
        }
        if let Some(uid) = self.uid {
            numbers(libc::SYS_setresuid, [uid as usize; 3]).map_err(refused(user))?;
        }
        if has_caps {
            let as_user = self.cap_keep.is_some() && self.uid.is_some_and(|uid| uid != 0);
            // All but root lose theirs in the exec, unless they are told to keep them.
            let own = if as_user || self.uid.is_none_or(|uid| uid == 0) { kept } else { 0 };
            let wanted = self.cap_keep.filter(|keep| *keep != u64::MAX).unwrap_or(0) & kept;
            keep_capabilities(own, wanted, as_user).map_err(refused(caps))?;
        }
        Ok(())
    }
}

/// What the child of a trial uses.
#[derive(Clone, Copy)]
struct Trial {
    orders: Orders,
    report: c_int,
}

extern "C" fn try_alone(trial: *mut Trial) -> ! {
    // SAFETY: it lies in the child's own copy of the block.
    let trial = unsafe { &*trial };
    if let Err((stage, errno)) = trial.orders.carry_out() {
        exec_pipe::report(trial.report, stage, errno, false);
    }
    raw::exit(0)
}

/// The numbers that capabilities have, up to the last one that this kernel knows.
fn each_capability(mut act: impl FnMut(c_int) -> raw::Result<()>) -> raw::Result<()> {
    let mut number: c_int = 0;
    while number < 64 && prctl([libc::PR_CAPBSET_READ, number, 0]).is_ok() {
        act(number)?;
        number = number.wrapping_add(1);
    }
    Ok(())
}

fn has(set: u64, number: c_int) -> bool {
    set.wrapping_shr(number as u32) & 1 == 1
}

/// No program that is executed gets others than these.
fn limit_capabilities(kept: u64) -> raw::Result<()> {
    each_capability(|number| {
        if !has(kept, number) && prctl([libc::PR_CAPBSET_READ, number, 0]) == Ok(1) {
            prctl([libc::PR_CAPBSET_DROP, number, 0])?;
        }
        Ok(())
    })
}

/// Of what this process has only `kept` stays, in which all that is `wanted` must be. `ambient`:
/// also for a program that is executed by another user than root.
fn keep_capabilities(kept: u64, wanted: u64, ambient: bool) -> raw::Result<()> {
    let [_, low, _, _, high, _] = raw::capabilities()?;
    let permitted = (u64::from(high) << 32 | u64::from(low)) & kept;
    if permitted & wanted != wanted {
        return Err(libc::EPERM);
    }
    let [low, high] = [permitted as u32, (permitted >> 32) as u32];
    let inherited = if ambient { [low, high] } else { [0, 0] };
    raw::set_capabilities(&[low, low, inherited[0], high, high, inherited[1]])?;
    if !ambient {
        return Ok(());
    }
    each_capability(|number| {
        if has(permitted, number) {
            prctl([libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number])?;
        }
        Ok(())
    })
}
