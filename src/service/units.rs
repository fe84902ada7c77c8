//! Durations and delays as people write them, and as tables show them.
//!
//! What a type prints it reads back exactly; the `human_` forms round and are for eyes only.
use std::fmt;

/// Largest first: the first unit that divides a span gives its shortest form.
const SPAN_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration as it is written: `250ms 10s 5m 2h 1d`, or `0`. Held in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Milliseconds.
    pub ms: u64,
}

impl Span {
    /// So many seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self { ms: seconds * 1_000 }
    }

    /// Reads a duration. A unit is required, as `10` could be either of two that differ by a
    /// thousand; only `0` is the same in all. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self { ms: 0 });
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let scale = SPAN_UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, scale)| scale);
        let Some(scale) = scale.filter(|_| !digits.is_empty()) else {
            let want = "want a whole number and a unit, such as 250ms 10s 5m 2h 1d";
            return Err(format!("bad duration {text:?}: {want}"));
        };
        let ms = digits.parse().ok().and_then(|number: u64| number.checked_mul(scale));
        ms.map(|ms| Self { ms }).ok_or_else(|| format!("bad duration {text:?}: it is too long"))
    }
}

/// The shortest text that [`Span::parse`] reads back as exactly this.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SPAN_UNITS.iter().find(|&&(_, scale)| self.ms.is_multiple_of(scale)) {
            Some((unit, scale)) if self.ms > 0 => write!(f, "{}{unit}", self.ms / scale),
            _ => f.write_str("0s"),
        }
    }
}

/// An amount of memory: `4096 500K 500M 1G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const BYTE_UNITS: &[(&str, u64)] =
    &[("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

impl Bytes {
    /// So many mebibytes.
    pub const fn mebi(count: u64) -> Self {
        Self(count << 20)
    }

    /// Reads a whole number and, where it is not of bytes, its unit. Errors: one line: what was
    /// expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unit = BYTE_UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (digits, scale) =
            unit.map_or((text, 1), |(_, scale)| (&text[..text.len() - 1], *scale));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| is_number);
        let bytes = number.and_then(|number: u64| number.checked_mul(scale)).map(Self);
        bytes.ok_or_else(|| format!("bad size {text:?}: want a whole number, such as 500K 500M 1G"))
    }
}

/// The shortest text that [`Bytes::parse`] reads back as exactly this.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BYTE_UNITS.iter().find(|&&(_, scale)| self.0.is_multiple_of(scale)) {
            Some((unit, scale)) if self.0 > 0 => write!(f, "{}{unit}", self.0 / scale),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// How long something has been up, in its largest unit, rounded down: `3s 4m 2h 5d`.
pub fn human_uptime(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long it still takes, rounded up to what its unit shows: `200ms 3s 4m`.
pub fn human_left(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        _ => human_uptime(ms.div_ceil(1_000) * 1_000),
    }
}

/// Memory with one decimal, as PM2 prints it: `0b 512b 12.3mb 1.0gb`.
pub fn human_bytes(bytes: u64) -> String {
    let units = [("kb", 1u64 << 10), ("mb", 1 << 20), ("gb", 1 << 30), ("tb", 1 << 40)];
    if bytes < 1 << 10 {
        return format!("{bytes}b");
    }
    // Rounded in tenths before the unit is chosen: 1048575 is 1.0mb, not 1024.0kb.
    let tenths = |scale: u64| (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    let fits = units.iter().find(|&&(_, scale)| tenths(scale) < 10_240);
    let (unit, scale) = fits.copied().unwrap_or(("tb", 1 << 40));
    format!("{}.{}{unit}", tenths(scale) / 10, tenths(scale) % 10)
}

/// The wait before an automatic restart: `2s`, or `2s..1m`, which doubles up to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delay {
    /// The first wait.
    pub min_ms: u64,
    /// The longest wait; never less than `min_ms`.
    pub max_ms: u64,
}

impl Delay {
    /// The same wait each time.
    pub const fn fixed(span: Span) -> Self {
        Self { min_ms: span.ms, max_ms: span.ms }
    }

    /// Reads `2s` or `2s..1m`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min, max) = (Span::parse(min)?, Span::parse(max)?);
        if max < min {
            return Err(format!("bad delay {text:?}: its bound is below its beginning"));
        }
        Ok(Self { min_ms: min.ms, max_ms: max.ms })
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Span { ms: self.min_ms })?;
        if self.max_ms != self.min_ms {
            write!(f, "..{}", Span { ms: self.max_ms })?;
        }
        Ok(())
    }
}
