//! What this kernel has, and what stands in where it hasn't. `OPM_WITHOUT` switches features off,
//! so that every fallback is tested on a kernel that has them all.

macro_rules! features {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// The kernel interfaces that opm can do without.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Features { $($(#[$doc])* pub $field: bool,)* }

        impl Features {
            pub const ALL: Self = Self { $($field: true,)* };

            /// Those that the comma list `without` doesn't name. Unknown words do nothing.
            pub fn without(mut self, without: &str) -> Self {
                let stays = |name| without.split(',').all(|word| word.trim() != name);
                $(self.$field &= stays($name);)*
                self
            }

            /// Each by its name in `OPM_WITHOUT`.
            pub fn each(self) -> [(&'static str, bool); [$($name),*].len()] {
                [$(($name, self.$field)),*]
            }
        }
    };
}

features! {
    /// pidfs: a pidfd's inode names its process for ever (6.9). Else: pid and start time.
    pidfd_inode: "pidfd-inode",
    /// pidfd_send_signal to a group, and its race-free emptiness (6.9). Else: each member.
    pgroup_signal: "pgroup-signal",
    /// PIDFD_GET_INFO: the exit status of what is not our child (6.15). Else: /proc/PID/stat.
    get_info: "get-info",
    /// A child that shares our memory until its exec, where [`super::raw`] knows the architecture;
    /// with `time_namespace` since 6.3. Else: a copy.
    shared_memory: "shared-memory",
    /// And our table of descriptors, which it leaves without a copy of it (close_range(2), 5.11).
    shared_table: "shared-table",
    /// clone3 with CLONE_CLEAR_SIGHAND (5.5). Else: fork, and each disposition reset.
    clone3: "clone3",
    /// A time namespace for each incarnation, which takes CAP_SYS_ADMIN (5.6). Else: marks alone.
    time_namespace: "time-namespace",
    /// File handles of namespaces: whether anything is in one is asked of the kernel (6.18). Else:
    /// passes over /proc.
    namespace_handle: "namespace-handle",
}
