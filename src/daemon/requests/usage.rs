//! What the processes of a tree use. Nothing is read while nobody asks, nor of those that have not
//! run since it was.
use super::*;
use crate::daemon::service::Usage;

/// What is remembered is read anew after this: the kernel takes memory from who does not run.
const USAGE_MS_MAX: u64 = 10_000;

impl<K: Kernel> Daemon<K> {
    /// None: nothing of it lives.
    pub(crate) fn usage(&mut self, id: Id) -> Option<Usage> {
        let (mut queue, mut unsure) = self.trees.members(id);
        queue.append(&mut unsure);
        let (kernel, now) = (&mut self.kernel, self.now);
        let service = self.services.get_mut(id)?;
        if queue.is_empty() {
            service.used = None;
            return None;
        }
        if let Some(last) = &service.used
            && now.saturating_sub(last.at) < USAGE_MS_MAX
            && queue.iter().all(|pid| last.pids.binary_search(pid).is_ok())
            && last.ran.is_some()
            && last.ran == last.pids.iter().map(|pid| kernel.ran(*pid)).sum()
        {
            return Some((**last).clone());
        }
        let mut usage = Usage { at: now, ran: Some(0), ..Usage::default() };
        let mut seen: BTreeSet<Pid> = queue.iter().copied().collect();
        while let Some(pid) = queue.pop() {
            // Before the rest: what it does from here on shows.
            let ran = kernel.ran(pid);
            let Ok(stat) = kernel.stat(pid) else {
                continue;
            };
            usage.pids.push(pid);
            usage.ticks += stat.utime + stat.stime;
            usage.pages += stat.rss_pages;
            usage.ran = usage.ran.zip(ran).map(|(sum, ran)| sum + ran);
            let mut children = Vec::new();
            if kernel.children(pid, &mut children).is_ok() {
                queue.extend(children.into_iter().filter(|pid| seen.insert(*pid)));
            }
        }
        usage.pids.sort_unstable();
        service.used = Some(Box::new(usage.clone()));
        Some(usage)
    }
}
