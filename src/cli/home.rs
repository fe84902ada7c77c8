//! Where the state of this user's opm lies, and what may be learned there without a daemon.
//! Nothing here writes but [`create`].
//!
//! Root never acts as root in a home of somebody else, who could have put anything there: a link,
//! a definition, a listener. [`find`] makes root's command that user's before it looks there.
use super::output::{Failure, reason, warn};
use crate::process::stat::environ_value;
use crate::service::environment::HOME_VARIABLE;
use crate::sys::home::Home;
use crate::sys::user::{User, become_user};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The sticky bit: a directory that many write to, and that is nobody's home.
const S_ISVTX: u32 = 0o1000;

/// The home of PID 1, and of root where nobody said what HOME is.
const SYSTEM_HOME: &str = "/run/opm";

/// The home directory of opm, absolute: `$OPM_HOME`, else `$HOME/.opm`, else `/run/opm` for PID 1
/// or a root without HOME; beside an `opm run` as PID 1 its. Root becomes whoever it belongs to.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    let home = behind_own_link(chosen()?);
    yield_to_owner(&home)?;
    // One of the user's, that root could not answer for.
    let home = behind_own_link(home);
    yield_to_owner(&home)?;
    Ok(home)
}

fn chosen() -> Result<PathBuf, Failure> {
    let home = choose(variable(HOME_VARIABLE), variable("HOME"), is_first(), is_root());
    if variable(HOME_VARIABLE).is_none()
        && !is_first()
        && let Some(program) = run_of(1)
    {
        let is_opm = program.ends_with("opm");
        if let Some(served) = home_of_first(is_opm) {
            return Ok(served);
        }
        if is_opm {
            warn("PID 1 is an opm run, whose home was not found (set OPM_HOME)");
        }
    }
    let homeless = "no home: neither OPM_HOME nor HOME is set (set one)";
    absolute(home.ok_or_else(|| Failure::unreachable(homeless))?)
}

/// The home of the `opm run` that is PID 1: it may have been told another one than we were, and
/// be another user's, whom root may look at.
fn home_of_first(is_opm: bool) -> Option<PathBuf> {
    let user = std::fs::metadata("/proc/1").ok()?.uid();
    // Readable for that user and root.
    let environ = if is_opm { std::fs::read("/proc/1/environ").ok() } else { None };
    let environ = environ.unwrap_or_default();
    let told = |name: &str| {
        let path = PathBuf::from(OsStr::from_bytes(environ_value(&environ, name)?));
        path.is_absolute().then_some(path)
    };
    let first = told(HOME_VARIABLE).into_iter();
    let first = first.chain(told("HOME").map(|home| home.join(".opm")));
    let usual = [SYSTEM_HOME.into(), format!("/tmp/opm-{user}").into()];
    first.chain(candidates()).chain(usual).find(|home| is_served(home, user))
}

/// Where the home of `opm run` may be: as [`find`] says; but where nobody said `OPM_HOME`, the
/// first of `$HOME/.opm`, `/run/opm` and `/tmp/opm-UID` that can be written to, because a
/// container may have a read-only root and any user.
///
/// Root's run stays root's, whoever HOME belongs to: it takes the first that is not somebody
/// else's.
pub(crate) fn for_run() -> Result<Vec<PathBuf>, Failure> {
    let is_mine = |home: &PathBuf| !is_root() || owner(home).is_none_or(|(uid, _)| uid == 0);
    let Some(own) = variable(HOME_VARIABLE) else {
        let homes = candidates().into_iter().map(behind_own_link);
        return Ok(homes.filter(is_mine).collect());
    };
    let home = behind_own_link(absolute(own.into())?);
    if is_mine(&home) {
        return Ok(vec![home]);
    }
    let text = format!("{}: it is not root's (choose another OPM_HOME)", home.display());
    Err(Failure::unreachable(text))
}

/// A home may be a link to where there is room; but only one that nobody else can have planted.
fn behind_own_link(home: PathBuf) -> PathBuf {
    let own = rustix::process::geteuid().as_raw();
    let is_own = std::fs::symlink_metadata(&home)
        .is_ok_and(|meta| meta.is_symlink() && [own, 0].contains(&meta.uid()));
    if is_own { std::fs::canonicalize(&home).unwrap_or(home) } else { home }
}

/// User and group whose home it is, or would be. None: anybody's.
fn owner(home: &Path) -> Option<(u32, u32)> {
    let there = std::fs::symlink_metadata(home);
    if let Ok(meta) = there {
        return Some((meta.uid(), meta.gid()));
    }
    let above = home.ancestors().skip(1).find_map(|dir| std::fs::metadata(dir).ok())?;
    (above.mode() & S_ISVTX == 0).then(|| (above.uid(), above.gid()))
}

/// Root acts as the owner of the home from here on.
fn yield_to_owner(home: &Path) -> Result<(), Failure> {
    let Some((uid, gid)) = owner(home).filter(|(uid, _)| is_root() && *uid != 0) else {
        return Ok(());
    };
    become_user(uid, gid).map_err(|errno| {
        let (home, reason) = (home.display(), reason(errno));
        let text = format!(
            "{home}: it belongs to uid {uid}, whom root can't become: {reason} (run opm as that \
             user)"
        );
        Failure::unreachable(text)
    })
}

/// Tells whoever looks in sudo's home for the services of the user that called it.
pub(crate) fn point_to_callers(home: &Path) {
    let caller = variable("SUDO_USER").filter(|_| is_root() && variable(HOME_VARIABLE).is_none());
    let Some(caller) = caller else { return };
    let Some(user) = User::find(|user| caller.to_str() == Some(&user.name) && user.uid != 0) else {
        return;
    };
    let theirs = Path::new(&user.home).join(".opm");
    if theirs.join("opm.sock").exists() {
        let (home, theirs, name) = (home.display(), theirs.display(), user.name);
        warn(&format!("this is root's opm, in {home}; that of {name} is in {theirs} (no sudo)"));
    }
}

fn candidates() -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let home = variable("HOME").map(|home| Path::new(&home).join(".opm"));
    let home = home.filter(|home| home.is_absolute());
    home.into_iter().chain([SYSTEM_HOME.into(), format!("/tmp/opm-{user}").into()]).collect()
}

/// Whether a socket is there in a directory of ours, of root, or of this user if we are root.
fn is_served(home: &Path, theirs: u32) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let trusted = std::fs::symlink_metadata(home).is_ok_and(|meta| {
        meta.is_dir() && ([user, 0].contains(&meta.uid()) || user == 0 && meta.uid() == theirs)
    });
    trusted && home.join("opm.sock").exists()
}

/// The program of what may be an `opm run`, by any name: `uv run` is none, and has no socket.
fn run_of(pid: i32) -> Option<PathBuf> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    let program = words.next()?;
    (words.next() == Some(b"run")).then(|| PathBuf::from(OsStr::from_bytes(program)))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn is_first() -> bool {
    rustix::process::getpid().is_init()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn absolute(home: PathBuf) -> Result<PathBuf, Failure> {
    // By its components: behind a slash at its end a link would be followed, whoever planted it.
    std::path::absolute(&home)
        .map(|home| home.components().collect())
        .map_err(|e| Failure::unreachable(format!("{}: {}", home.display(), reason(e))))
}

fn choose(
    own: Option<OsString>,
    home: Option<OsString>,
    first: bool,
    root: bool,
) -> Option<PathBuf> {
    if let Some(own) = own {
        return Some(own.into());
    }
    match home {
        Some(home) if !first => Some(Path::new(&home).join(".opm")),
        _ if first || root => Some(SYSTEM_HOME.into()),
        _ => None,
    }
}

/// Makes the home, for its owner alone, or sees that it is one: before anything is put there.
pub(crate) fn create(home: &Path) -> Result<(), Failure> {
    let wrong = |text: String| Failure::unreachable(text);
    let path = home.to_str();
    let path = path.ok_or_else(|| wrong(format!("{}: it is not UTF-8", home.display())))?;
    Home::open(path).map(drop).map_err(|errno| wrong(Home::refusal(path, errno)))
}

/// Whether a daemon has ever been here: without one there is no service to speak of. Not asked
/// of the journal: services whose record is lost are found by their marks.
pub(crate) fn is_on_record(home: &Path) -> bool {
    ["lock", "journal", "services"].iter().any(|file| home.join(file).exists())
}

/// Whether there is no room for a line of daemon.log.
pub(crate) fn is_full(home: &Path) -> bool {
    rustix::fs::statvfs(home).is_ok_and(|system| system.f_bavail == 0)
}

#[cfg(test)]
#[path = "../../tests/inner/cli_home.rs"]
mod tests;
