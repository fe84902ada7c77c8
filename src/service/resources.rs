//! Values of the options that say who a service's processes are, and how much they may use: text
//! that people write, as numbers that the kernel takes.
use super::context::{LIMIT_NAMES, UNLIMITED};
use super::units::Bytes;

/// What has no text of its own.
pub trait Value: Sized {
    /// Whether there are commas between its parts.
    const IS_LIST: bool = false;

    /// Reads it. Errors: one line: what was expected.
    fn parse(text: &str) -> Result<Self, String>;
}

/// A value and, for whoever asks, its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    pub text: String,
    pub value: T,
}

/// A scheduling priority as setpriority(2) takes it: -20 is first, 19 last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nice(pub i32);

/// `oom_score_adj` of proc(5): 1000 is killed first when memory runs out, -1000 never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScore(pub i32);

/// A umask, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(pub u32);

impl Value for Umask {
    fn parse(text: &str) -> Result<Self, String> {
        let octal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let mask = u32::from_str_radix(text, 8).ok().filter(|mask| octal && *mask <= 0o777);
        mask.map(Self).ok_or_else(|| "expected an octal number from 000 to 777".to_owned())
    }
}

/// A user or a group, by name or number; of a user, a group may follow behind a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account;

impl Value for Account {
    fn parse(text: &str) -> Result<Self, String> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == ',';
        let mut names = text.splitn(3, ':');
        let first = names.next().is_some_and(|name| !name.is_empty());
        let named = first && names.next() != Some("") && names.next().is_none();
        let account = (named && !text.contains(odd)).then_some(Self);
        account.ok_or_else(|| "expected a name or a number".to_owned())
    }
}

/// Soft and hard limits by their place in [`LIMIT_NAMES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimits(pub Vec<(usize, [u64; 2])>);

impl Value for ResourceLimits {
    const IS_LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text {
            "unlimited" | "infinity" => Some(UNLIMITED),
            text => Bytes::parse(text).ok().map(|bytes| bytes.0),
        };
        let each = text.split(',').map(|item| {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let (soft, hard) = value.split_once(':').unwrap_or((value, value));
            let at = LIMIT_NAMES.iter().position(|known| *known == name.trim());
            let pair = number(soft).zip(number(hard)).filter(|(soft, hard)| soft <= hard);
            at.zip(pair).map(|(at, (soft, hard))| (at, [soft, hard])).ok_or_else(|| {
                let (form, names) = ("NAME=SOFT[:HARD] in numbers or unlimited", LIMIT_NAMES);
                format!("'{item}' is not {form} (names: {})", names.join(" "))
            })
        });
        each.collect::<Result<_, _>>().map(Self)
    }
}

/// A set of capabilities(7), a bit each by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

/// The names of capabilities(7), by their numbers.
const CAPABILITIES: &str = "chown dac_override dac_read_search fowner fsetid kill setgid setuid \
    setpcap linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner \
    sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource \
    sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin \
    syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore";

impl Value for Capabilities {
    const IS_LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let mut each = text.split(',').map(|item| {
            let lower = item.trim().to_ascii_lowercase();
            let name = lower.strip_prefix("cap_").unwrap_or(&lower);
            match CAPABILITIES.split_whitespace().position(|known| known == name) {
                _ if name == "all" => Ok(u64::MAX),
                Some(at) => Ok(1 << at),
                None => {
                    let form = "a capability such as net_bind_service, or all";
                    Err(format!("'{item}' is not {form} (see capabilities(7))"))
                }
            }
        });
        each.try_fold(0, |set, bit| Ok(set | bit?)).map(Self)
    }
}

/// A class and, within it, a priority, as ioprio_set(2) takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoClass(pub u16);

impl Value for IoClass {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, level) = text.split_once(':').unwrap_or((text, "4"));
        let level = level.parse::<u16>().ok().filter(|level| *level < 8);
        let value = match (name, level) {
            ("realtime", Some(level)) => Some(1 << 13 | level),
            ("best-effort", Some(level)) => Some(2 << 13 | level),
            _ if text == "idle" => Some(3 << 13),
            _ => None,
        };
        let form = "idle, best-effort[:0-7] or realtime[:0-7]";
        value.map(Self).ok_or_else(|| format!("'{text}' is not an I/O class ({form})"))
    }
}

/// A share of the time of one CPU, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuShare(pub u32);

impl Value for CpuShare {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix('%').filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
        let share = digits.and_then(|digits| digits.parse().ok()).filter(|share| *share > 0);
        let share = share.filter(|share| *share <= 100 * CPUS_MAX as u32).map(Self);
        share.ok_or_else(|| "expected a share of one CPU, such as 50% or 200%".to_owned())
    }
}

/// CPUs, a bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Box<CpuSet>);

/// As sched_setaffinity(2) takes it.
pub type CpuSet = [u64; CPUS_MAX / 64];

const CPUS_MAX: usize = 1024;

impl Value for Cpus {
    const IS_LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let mut set = Box::new([0; CPUS_MAX / 64]);
        for item in text.split(',').map(str::trim) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let number = |text: &str| text.parse().ok().filter(|cpu: &usize| *cpu < CPUS_MAX);
            match number(first).zip(number(last)).filter(|(first, last)| first <= last) {
                Some((first, last)) => (first..=last).for_each(|at| set[at / 64] |= 1 << (at % 64)),
                None => return Err(format!("'{item}' is not a CPU or a range, as in 0-3,6")),
            }
        }
        Ok(Self(set))
    }
}
