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
    /// thousand; only `0` is the same in all.
    ///
    /// # Errors
    /// One line: what was expected.
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

    /// Reads a whole number and, where it is not of bytes, its unit.
    ///
    /// # Errors
    /// One line: what was expected.
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

    /// Reads `2s` or `2s..1m`.
    ///
    /// # Errors
    /// One line: what was expected.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_unit_and_print_in_their_shortest_form() {
        for (text, bytes, shortest) in [
            ("0", 0, "0"),
            ("1024", 1_024, "1K"),
            ("1536K", 1_572_864, "1536K"),
            ("2G", 2 << 30, "2G"),
        ] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
            assert_eq!(Bytes(bytes).to_string(), shortest);
        }
        for text in ["", "K", "-1", "+1", "1.5G", "1 G", "1m", "99999999999T"] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_in_every_unit_and_print_in_their_shortest_form() {
        for (text, ms, shortest) in [
            ("0", 0, "0s"),
            ("1ms", 1, "1ms"),
            ("250ms", 250, "250ms"),
            ("1500ms", 1_500, "1500ms"),
            ("007s", 7_000, "7s"),
            ("10s", 10_000, "10s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("5m", 300_000, "5m"),
            ("90m", 5_400_000, "90m"),
            ("24h", 86_400_000, "1d"),
            ("25h", 90_000_000, "25h"),
            ("18446744073709551615ms", u64::MAX, "18446744073709551615ms"),
        ] {
            assert_eq!(Span::parse(text), Ok(Span { ms }), "{text}");
            assert_eq!(Span { ms }.to_string(), shortest);
            assert_eq!(Span::parse(shortest), Ok(Span { ms }));
        }
    }

    #[test]
    fn spans_need_a_whole_number_and_a_unit() {
        for text in ["", "10", "s", "-1s", "+1s", "1.5s", "1 s", " 1s", "1S", "1w", "1s1s", "٣s"] {
            let error = Span::parse(text).expect_err(text);
            assert!(error.contains("bad duration") && error.contains("10s"), "{error}");
        }
        for text in ["18446744073709551616ms", "18446744073709551615s", "213503982335d"] {
            assert!(Span::parse(text).expect_err(text).contains("too long"));
        }
    }

    #[test]
    fn what_people_see_is_rounded() {
        for (ms, text) in [
            (999, "0s"),
            (3_999, "3s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (3_599_999, "59m"),
            (7_200_000, "2h"),
            (86_399_999, "23h"),
            (5 * 86_400_000, "5d"),
        ] {
            assert_eq!(human_uptime(ms), text);
        }
        for (ms, text) in [(0, "0ms"), (250, "250ms"), (1_001, "2s"), (59_500, "1m")] {
            assert_eq!(human_left(ms), text);
        }
        for (bytes, text) in [
            (0, "0b"),
            (1_023, "1023b"),
            (1_024, "1.0kb"),
            (12_897_485, "12.3mb"),
            (1_048_575, "1.0mb"),
            (1_048_576, "1.0mb"),
            (1 << 30, "1.0gb"),
            (3 << 40, "3.0tb"),
            (u64::MAX, "16777216.0tb"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn a_delay_is_fixed_or_a_range() {
        assert_eq!(Delay::parse("2s"), Ok(Delay { min_ms: 2_000, max_ms: 2_000 }));
        assert_eq!(Delay::parse("2s..1m"), Ok(Delay { min_ms: 2_000, max_ms: 60_000 }));
        for text in ["0s", "2s", "250ms..1m", "0s..1d"] {
            assert_eq!(Delay::parse(text).expect(text).to_string(), text);
        }
        for text in ["", "..", "2s..", "..2s", "1m..2s", "2s...1m", "2s..1m..2m", "2"] {
            assert!(Delay::parse(text).is_err(), "{text}");
        }
    }
}
