//! What this kernel has, and what stands in where it hasn't. `OPM_WITHOUT` switches features off,
//! so that every fallback is tested on a kernel that has them all.

/// The kernel interfaces that opm can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// pidfs: a pidfd's inode names its process for ever (6.9). Else: pid and start time.
    pub pidfd_inode: bool,
    /// pidfd_send_signal to a group, and its race-free emptiness (6.9). Else: each member.
    pub pgroup_signal: bool,
    /// PIDFD_GET_INFO: the exit status of what is not our child (6.15). Else: /proc/PID/stat.
    pub get_info: bool,
    /// A child that shares our memory until its exec, where [`super::raw`] knows the architecture;
    /// with `time_namespace` since 6.3. Else: a copy.
    pub shared_memory: bool,
    /// clone3 with CLONE_CLEAR_SIGHAND (5.5). Else: fork, and each disposition reset.
    pub clone3: bool,
    /// A time namespace for each incarnation, which takes CAP_SYS_ADMIN (5.6). Else: marks alone.
    pub time_namespace: bool,
    /// File handles of namespaces: whether anything is in one is asked of the kernel (6.18). Else:
    /// passes over /proc.
    pub namespace_handle: bool,
}

impl Features {
    pub const ALL: Self = Self {
        pidfd_inode: true,
        pgroup_signal: true,
        get_info: true,
        shared_memory: true,
        clone3: true,
        time_namespace: true,
        namespace_handle: true,
    };

    /// Each by its name in `OPM_WITHOUT`.
    fn each_mut(&mut self) -> [(&'static str, &mut bool); 7] {
        [
            ("pidfd-inode", &mut self.pidfd_inode),
            ("pgroup-signal", &mut self.pgroup_signal),
            ("get-info", &mut self.get_info),
            ("shared-memory", &mut self.shared_memory),
            ("clone3", &mut self.clone3),
            ("time-namespace", &mut self.time_namespace),
            ("namespace-handle", &mut self.namespace_handle),
        ]
    }

    /// Those of `self` that the comma list `without` doesn't name. Unknown words do nothing.
    pub fn without(mut self, without: &str) -> Self {
        for (name, has) in self.each_mut() {
            *has &= without.split(',').all(|word| word.trim() != name);
        }
        self
    }

    /// Each by its name.
    pub fn each(mut self) -> [(&'static str, bool); 7] {
        self.each_mut().map(|(name, has)| (name, *has))
    }
}
