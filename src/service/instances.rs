//! Several of one service: `web-0`, `web-1` and so on, each a service of its own, under one name.
use super::spec::Spec;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most instances of one service.
pub const INSTANCES_MAX: u32 = 1_024;

/// How many: a number, or one for each processor but for so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instances(i32);

impl Instances {
    /// Reads `4`, `max` or `-1`; 0 is `max`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = if text == "max" { Some(0) } else { text.parse().ok() };
        let fits = |number: &i32| number.unsigned_abs() <= INSTANCES_MAX;
        let reason = || format!("expected a number up to {INSTANCES_MAX}, max or -N");
        number.filter(fits).map(Self).ok_or_else(reason)
    }

    /// Whether it is more than one, where a machine has processors enough.
    pub fn is_several(self) -> bool {
        self.0 != 1
    }

    /// So many on a machine of so many processors; at least one.
    pub fn count(self, processors: u32) -> u32 {
        match self.0 {
            1.. => self.0.unsigned_abs(),
            less => processors.saturating_sub(less.unsigned_abs()).clamp(1, INSTANCES_MAX),
        }
    }
}

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("max") } else { write!(f, "{}", self.0) }
    }
}

/// How many instances there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    To(u32),
    More(u32),
    Fewer(u32),
}

impl Scale {
    /// Reads `4`, `+2` or `-1`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (to, digits): (fn(u32) -> Self, &str) = match text.split_at_checked(1) {
            Some(("+", digits)) => (Self::More, digits),
            Some(("-", digits)) => (Self::Fewer, digits),
            _ => (Self::To, text),
        };
        let is_number = !digits.starts_with(['+', '-']);
        let number = digits.parse().ok().filter(|_| is_number);
        number.map(to).ok_or_else(|| "expected N, +N or -N".to_owned())
    }
}

/// A port for each instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Reads `3000-3003`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            Some(Self { first: first.parse().ok()?, last: last.parse().ok()? })
        });
        let is_range = |range: &Self| range.first > 0 && range.first <= range.last;
        ends.filter(is_range).ok_or_else(|| "expected FIRST-LAST, as 3000-3003".to_owned())
    }

    /// The port of an instance, if there is one for it.
    pub fn port(self, instance: u32) -> Option<u32> {
        let port = u32::from(self.first).checked_add(instance)?;
        (port <= u32::from(self.last)).then_some(port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The services that a declaration stands for: one alone keeps its name.
pub fn expand(mut spec: Spec, processors: impl FnOnce() -> u32) -> Vec<Spec> {
    match spec.held.instances.take().map(|instances| instances.count(processors())) {
        None => vec![spec],
        Some(1) => {
            spec.held.instance_of = Some(spec.name.clone());
            vec![spec]
        }
        Some(count) => (0..count).map(|number| instance(&spec, number)).collect(),
    }
}

/// Another instance of what `of` is, or is the first of.
pub fn instance(of: &Spec, number: u32) -> Spec {
    let group = of.group();
    let mut spec = Spec { name: format!("{group}-{number}"), ..of.clone() };
    if spec.held.instance_of.as_deref() != Some(group) {
        spec.held.instance_of = Some(group.to_owned());
    }
    spec
}
