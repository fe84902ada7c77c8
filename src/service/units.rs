//! Durations, sizes and delays as people write them, and as tables show them.
//!
//! What is parsed and printed by the same pair round-trips exactly; the `human_` forms round and
//! are for eyes only, never read back.
use std::fmt;
use std::str::FromStr;

/// Largest first: the first unit that divides a span gives its shortest form.
const SPAN_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: &[(&str, u64)] =
    &[("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// A duration as it is written: `250ms 10s 5m 2h 1d`, or `0`. Held in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Milliseconds.
    pub ms: u64,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        parse_span(text).map(|ms| Span { ms })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_span(self.ms))
    }
}

/// Reads a duration, in milliseconds. A unit is required, as `10` could be either of two that
/// differ by a thousand; only `0` is the same in all.
pub fn parse_span(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let want = "want a whole number and a unit, such as 250ms 10s 5m 2h 1d";
    let (number, unit) = number_and_unit(text);
    let scale = SPAN_UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, scale)| scale);
    match (number, scale) {
        ("", _) | (_, None) => Err(format!("bad duration {text:?}: {want}")),
        (digits, Some(scale)) => {
            scaled(digits, scale).ok_or_else(|| format!("bad duration {text:?}: it is too long"))
        }
    }
}

/// The shortest text that [`parse_span`] reads back as exactly `ms`.
pub fn format_span(ms: u64) -> String {
    match SPAN_UNITS.iter().find(|&&(_, scale)| ms.is_multiple_of(scale)) {
        Some((unit, scale)) if ms > 0 => format!("{}{unit}", ms / scale),
        _ => "0s".to_owned(),
    }
}

/// Reads a size in bytes: `500K 500M 1G` by 1024 (also `KB`, `KiB`, in either case), or plain
/// bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let upper = unit.to_ascii_uppercase();
    let short = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let scale = match short {
        "" if upper != "IB" => Some(1),
        _ => SIZE_UNITS.iter().find(|(name, _)| *name == short).map(|&(_, scale)| scale),
    };
    match (number, scale) {
        ("", _) | (_, None) => {
            Err(format!("bad size {text:?}: want a whole number and a unit, such as 500K 500M 1G"))
        }
        (digits, Some(scale)) => {
            scaled(digits, scale).ok_or_else(|| format!("bad size {text:?}: it is too large"))
        }
    }
}

/// The shortest text that [`parse_size`] reads back as exactly `bytes`.
pub fn format_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|&&(_, scale)| bytes.is_multiple_of(scale)) {
        Some((unit, scale)) if bytes > 0 => format!("{}{unit}", bytes / scale),
        _ => bytes.to_string(),
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn scaled(digits: &str, scale: u64) -> Option<u64> {
    digits.parse::<u64>().ok()?.checked_mul(scale)
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
    /// Reads `2s` or `2s..1m`.
    pub fn parse(text: &str) -> Result<Delay, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min_ms, max_ms) = (parse_span(min)?, parse_span(max)?);
        if max_ms < min_ms {
            return Err(format!("bad delay {text:?}: its bound is below its beginning"));
        }
        Ok(Delay { min_ms, max_ms })
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Delay, String> {
        Delay::parse(text)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_span(self.min_ms))?;
        if self.max_ms != self.min_ms {
            write!(f, "..{}", format_span(self.max_ms))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_every_unit() {
        let spans = [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("007s", 7_000),
        ];
        for (text, ms) in spans {
            assert_eq!(parse_span(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn spans_need_a_whole_number_and_a_unit() {
        for text in ["", "10", "s", "-1s", "+1s", "1.5s", "1 s", " 1s", "1S", "1w", "1s1s", "٣s"] {
            let error = parse_span(text).expect_err(text);
            assert!(error.contains("bad duration") && error.contains("10s"), "{error}");
        }
    }

    #[test]
    fn a_span_past_the_largest_number_is_an_error() {
        assert_eq!(parse_span("18446744073709551615ms"), Ok(u64::MAX));
        for text in ["18446744073709551616ms", "18446744073709551615s", "213503982335d"] {
            assert!(parse_span(text).expect_err(text).contains("too long"));
        }
    }

    #[test]
    fn spans_print_in_their_shortest_form() {
        let spans = [
            (0, "0s"),
            (1, "1ms"),
            (250, "250ms"),
            (1_000, "1s"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (60_000, "1m"),
            (5_400_000, "90m"),
            (86_400_000, "1d"),
            (90_000_000, "25h"),
        ];
        for (ms, text) in spans {
            assert_eq!(format_span(ms), text);
        }
    }

    #[test]
    fn spans_and_sizes_parse_back() {
        for shift in 0..64 {
            for value in [0, 1u64 << shift, (1 << shift) - 1, 1_000 << (shift / 2), u64::MAX] {
                assert_eq!(parse_span(&format_span(value)), Ok(value));
                assert_eq!(parse_size(&format_size(value)), Ok(value));
                assert_eq!(Span { ms: value }.to_string().parse(), Ok(Span { ms: value }));
            }
        }
    }

    #[test]
    fn sizes_count_by_1024() {
        let sizes = [
            ("0", 0),
            ("1", 1),
            ("7B", 7),
            ("500K", 512_000),
            ("500M", 524_288_000),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("3m", 3 << 20),
            ("5mb", 5 << 20),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(format_size(524_288_000), "500M");
        assert_eq!(format_size(1_000), "1000");
    }

    #[test]
    fn bad_sizes_are_refused() {
        for text in ["", "K", "B", "iB", "1iB", "1.5G", "-1", "1 K", "1X", "1KBB", "16777216T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uptime_is_rounded_down_in_its_largest_unit() {
        let uptimes = [
            (0, "0s"),
            (999, "0s"),
            (3_999, "3s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (3_599_999, "59m"),
            (7_200_000, "2h"),
            (86_399_999, "23h"),
            (5 * 86_400_000, "5d"),
        ];
        for (ms, text) in uptimes {
            assert_eq!(human_uptime(ms), text);
        }
    }

    #[test]
    fn memory_has_one_decimal_and_never_1024_of_a_unit() {
        let sizes = [
            (0, "0b"),
            (1_023, "1023b"),
            (1_024, "1.0kb"),
            (12_897_485, "12.3mb"),
            (1_048_575, "1.0mb"),
            (1_048_576, "1.0mb"),
            (1 << 30, "1.0gb"),
            (3 << 40, "3.0tb"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(human_bytes(bytes), text);
        }
        assert_eq!(human_bytes(u64::MAX), "16777216.0tb");
    }

    #[test]
    fn a_delay_is_fixed_or_a_range() {
        assert_eq!(Delay::parse("2s"), Ok(Delay { min_ms: 2_000, max_ms: 2_000 }));
        assert_eq!(Delay::parse("2s..1m"), Ok(Delay { min_ms: 2_000, max_ms: 60_000 }));
        for text in ["0s", "2s", "250ms..1m", "0s..1d"] {
            assert_eq!(Delay::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_delay_that_shrinks_or_lacks_an_end_is_refused() {
        for text in ["", "..", "2s..", "..2s", "1m..2s", "2s...1m", "2s..1m..2m", "2"] {
            assert!(Delay::parse(text).is_err(), "{text}");
        }
    }
}
