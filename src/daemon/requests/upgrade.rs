//! `daemon restart` and `daemon upgrade`: become another image, and adopt from the journal as
//! after any death. There is no second hand-over format.
use super::wait::done;
use crate::daemon::{ClientId, Daemon, Leave};
use crate::sys::Kernel;
use crate::wire::{Failure, Reply};

impl<K: Kernel> Daemon<K> {
    /// Whether some child has not exec'd yet, or is about to be forked.
    pub(crate) fn is_launching(&self) -> bool {
        !self.launches.queue.is_empty() || self.trees.is_launching()
    }

    pub(crate) fn upgrade(
        &mut self,
        client: ClientId,
        binary: Option<String>,
    ) -> Result<(), Failure> {
        let own = std::env::current_exe().map(|path| path.to_string_lossy().into_owned());
        let binary = match binary.map_or(own, Ok) {
            // The kernel's word for a file that has been replaced.
            Ok(path) => path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned(),
            Err(error) => {
                return Err(Failure::plain(format!("cannot tell which program I am: {error}")));
            }
        };
        if !binary.starts_with('/') {
            return Err(Failure::usage(format!("{binary}: is not an absolute path")));
        }
        let outcomes = vec![done(format!("replacing the daemon by {binary}"))];
        self.outbox.push((client, Reply::Outcomes { outcomes, summary: None }));
        self.leave = Some(Leave::Exec(binary));
        Ok(())
    }
}
