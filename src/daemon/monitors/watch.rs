//! What changes among a service's files. One that runs is restarted, one that has ended started
//! again, once the changes have ceased.
//!
//! Watched is from before the launch of each incarnation: what changes before, that one sees; what
//! changes after its predecessor was told to end, too.
use super::advice::{Advice, Cx};
use crate::daemon::service::Service;
use crate::daemon::timers::Timer;
use crate::service::environment::tidy;
use crate::service::glob;
use crate::service::machine::{Phase, Time};
use crate::service::spec::Id;
use crate::sys::files::Files;
use crate::sys::token::Token;
use crate::sys::{Errno, describe};
use mio::Registry;
use mio::unix::SourceFd;
use rustix::fd::AsRawFd;
use std::collections::BTreeMap;

/// The changes have ceased when there is none for so long; or they have lasted for so long.
const QUIET_MS: u64 = 200;
const BURST_MS_MAX: u64 = 2_000;
/// Never a source of anything: what tools make, and editors beside what they edit.
const IGNORED: [&str; 7] = ["node_modules", ".git", "__pycache__", "*.sw?", "*~", ".#*", "4913"];

#[derive(Debug)]
struct Armed {
    generation: u64,
    files: Option<Files>,
    cwd: String,
    /// Not what is in it: the home of opm itself, where logs are.
    home: String,
    ignored: Vec<String>,
    /// The first change, and when.
    changed: Option<(String, Time)>,
    trouble: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Watches {
    armed: BTreeMap<Id, Box<Armed>>,
}

impl Armed {
    fn is_ignored(&self, path: &str) -> bool {
        let below = |path: &str, of: &str| {
            let rest = path.strip_prefix(of.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let near = below(path, &self.cwd);
        let near = near.as_deref().unwrap_or(path);
        let own = self.ignored.iter().map(String::as_str);
        below(path, &self.home).is_some()
            || IGNORED.into_iter().chain(own).any(|pattern| {
                glob::means(pattern, if pattern.starts_with('/') { path } else { near })
            })
    }

    fn begin(&mut self, registry: Option<&Registry>, of: &Service) -> Result<(), Errno> {
        let mut files = Files::new()?;
        for path in &of.definition.spec.care.watch {
            let path = std::path::Path::new(&self.cwd).join(&path.0);
            let path = tidy(&path);
            files.watch(&path, &|path| self.is_ignored(path))?;
        }
        if let Some(registry) = registry {
            Token::Files(of.id).watch(registry, &files)?;
        }
        self.files = Some(files);
        Ok(())
    }
}

impl Watches {
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, of: &Service) {
        let care = &of.definition.spec.care;
        let is_over = of.removing || of.record.halted && !of.is_live();
        let known = self.armed.get(&of.id).map(|armed| armed.generation);
        if known.is_none() && care.watch.is_empty()
            || known == Some(of.record.generation) && !is_over
        {
            return;
        }
        self.forget(cx, of.id);
        if is_over || care.watch.is_empty() || of.record.generation == 0 {
            return;
        }
        let log = &of.definition.spec.log;
        // With what becomes of them.
        let logs = log.log_out.iter().chain(&log.log_error).map(|path| format!("{path}*"));
        let mut armed = Box::new(Armed {
            generation: of.record.generation,
            files: None,
            cwd: of.definition.spec.cwd.to_string(),
            home: cx.home.to_owned(),
            ignored: care.ignore_watch.iter().cloned().chain(logs).collect(),
            changed: None,
            trouble: None,
        });
        armed.trouble = armed.begin(cx.registry, of).err().map(|errno| {
            let what = match errno {
                Errno::NOSPC => "too many directories: raise fs.inotify.max_user_watches",
                Errno::MFILE => "too many services that watch: raise fs.inotify.max_user_instances",
                _ => "",
            };
            let why = if what.is_empty() { describe(errno) } else { format!("{what} by sysctl") };
            format!("its files can't be watched: {why}")
        });
        if let Some(trouble) = &armed.trouble {
            cx.say(of, Advice::Status(trouble.clone()));
        }
        self.armed.insert(of.id, armed);
    }

    pub(crate) fn look(&mut self, cx: &mut Cx<'_>, id: Id) {
        let Some(armed) = self.armed.get_mut(&id) else { return };
        let Some(mut files) = armed.files.take() else { return };
        let mut first: Option<String> = None;
        let mut any = false;
        files.changes(|path| {
            if path.is_none_or(|path| !armed.is_ignored(path)) {
                any = true;
                first.get_or_insert_with(|| path.unwrap_or("more than can be told").to_owned());
            }
        });
        armed.files = Some(files);
        if any {
            let (_, since) = armed.changed.get_or_insert((first.unwrap_or_default(), cx.now));
            let at = (cx.now + QUIET_MS).min(*since + BURST_MS_MAX);
            cx.timers.set(Timer::Watch(id), Some(at));
        }
    }

    /// The changes have ceased.
    pub(crate) fn due(&mut self, cx: &mut Cx<'_>, of: &Service) {
        let Some(armed) = self.armed.get_mut(&of.id) else { return };
        if matches!(of.machine.phase(), Phase::Starting { .. }) {
            return cx.timers.set(Timer::Watch(of.id), Some(cx.now + QUIET_MS));
        }
        let Some((path, _)) = armed.changed.take() else { return };
        let advice = match of.machine.phase() {
            Phase::Up { .. } => Advice::Restart("watch".into()),
            Phase::Down(_) | Phase::Failed(_) => Advice::Start("watch".into()),
            Phase::Cooldown { .. }
            | Phase::Starting { .. }
            | Phase::Lingering { .. }
            | Phase::Stopping { .. } => return,
        };
        cx.say(of, Advice::Status(format!("changed: {path}")));
        cx.say(of, advice);
    }

    pub(crate) fn forget(&mut self, cx: &mut Cx<'_>, id: Id) {
        let Some(armed) = self.armed.remove(&id) else { return };
        if let (Some(files), Some(registry)) = (&armed.files, cx.registry) {
            // Before it is closed: a child may hold a copy until its exec.
            registry.deregister(&mut SourceFd(&files.as_raw_fd())).ok();
        }
        cx.timers.set(Timer::Watch(id), None);
    }

    pub(crate) fn is_watching(&self, id: Id) -> bool {
        self.armed.get(&id).is_some_and(|armed| armed.files.is_some())
    }

    /// Why they are not, though it is asked for.
    pub(crate) fn trouble(&self, id: Id) -> Option<&str> {
        self.armed.get(&id)?.trouble.as_deref()
    }
}
