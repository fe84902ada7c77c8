//! Times of day, as events, answers and stamped lines show them.

/// Year, month and day, of days since 1970. (After Howard Hinnant's `civil_from_days`.)
pub(super) fn date(days: i64) -> [i64; 3] {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    [year_of_era + era * 400 + i64::from(month <= 2), month, day]
}

/// Year, month, day, hour, minute and second of Unix seconds, UTC.
fn civil(unix: u64) -> [u64; 6] {
    let date = date(i64::try_from(unix / 86_400).unwrap_or(0));
    let [year, month, day] = date.map(|part| u64::try_from(part).unwrap_or(0));
    [year, month, day, unix / 3_600 % 24, unix / 60 % 60, unix % 60]
}

/// Unix milliseconds as RFC 3339, UTC, with milliseconds.
pub fn rfc3339(unix_ms: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(unix_ms / 1000);
    let milli = unix_ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// How a time is written, in UTC: by the tokens that PM2's `log_date_format` has, what stands in
/// brackets as it is; or `rfc3339`, with microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat(String);

const RFC3339: &str = "rfc3339";
/// A token, and the digits and the divisor of what it stands for.
const TOKENS: &[(&str, usize, usize, u64)] = &[
    ("YYYY", 0, 4, 1),
    ("YY", 0, 2, 1),
    ("MM", 1, 2, 1),
    ("DD", 2, 2, 1),
    ("HH", 3, 2, 1),
    ("mm", 4, 2, 1),
    ("ss", 5, 2, 1),
    ("SSSSSS", 6, 6, 1),
    ("SSS", 6, 3, 1_000),
];

impl Default for TimeFormat {
    fn default() -> Self {
        Self(RFC3339.to_owned())
    }
}

impl TimeFormat {
    /// Reads a format; nothing is the default. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "true" || text == RFC3339 {
            return Ok(Self::default());
        }
        if TOKENS.iter().any(|(token, ..)| text.contains(token)) && !text.contains('\n') {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("{text:?} is no time format (want one such as 'YYYY-MM-DD HH:mm:ss.SSS Z')"))
    }

    /// Unix microseconds in this format.
    pub fn text(&self, unix_us: u64) -> String {
        let pattern = match self.0.as_str() {
            RFC3339 => "YYYY-MM-DDTHH:mm:ss.SSSSSS[Z]",
            pattern => pattern,
        };
        let [year, month, day, hour, minute, second] = civil(unix_us / 1_000_000);
        let parts = [year, month, day, hour, minute, second, unix_us % 1_000_000];
        let (mut text, mut rest) = (String::new(), pattern);
        while let Some(first) = rest.chars().next() {
            let token = TOKENS.iter().find(|(token, ..)| rest.starts_with(token));
            let (taken, shown) = if let Some((token, part, digits, divisor)) = token {
                let number = parts[*part] / divisor % 10u64.pow(*digits as u32);
                (token.len(), format!("{number:0digits$}"))
            } else if let Some((inner, _)) = rest.strip_prefix('[').and_then(|r| r.split_once(']'))
            {
                (inner.len() + 2, inner.to_owned())
            } else if rest.starts_with('Z') {
                let wide = rest.starts_with("ZZ");
                (1 + usize::from(wide), if wide { "+0000" } else { "+00:00" }.to_owned())
            } else {
                (first.len_utf8(), first.to_string())
            };
            text.push_str(&shown);
            rest = &rest[taken..];
        }
        text
    }
}

impl std::fmt::Display for TimeFormat {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

/// The time that RFC 3339 says at the beginning of `text`, in Unix milliseconds. A blank may stand
/// for the `T`; without a zone it is UTC.
pub fn parse_rfc3339(text: &[u8]) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to).filter(|part| part.iter().all(u8::is_ascii_digit))?;
        Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    };
    for (at, signs) in [(4, "-"), (7, "-"), (10, "T "), (13, ":"), (16, ":")] {
        text.get(at).filter(|byte| signs.as_bytes().contains(byte))?;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // From March on, so that the day that some years have more is the last one.
    let (year, month) =
        if month < 3 { (year.checked_sub(1)?, month + 9) } else { (year, month - 3) };
    let of_era = year % 400;
    let of_year = (153 * month + 2) / 5 + day.checked_sub(1)?;
    let days = year / 400 * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let seconds = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    let seconds = days.checked_sub(719_468)? * 86_400 + seconds;
    let (mut ms, mut at, mut scale) = (0, 19, 100);
    if text.get(at) == Some(&b'.') {
        at += 1;
        while let Some(digit) = number(at, at + 1) {
            (ms, at, scale) = (ms + digit * scale, at + 1, scale / 10);
        }
    }
    at += usize::from(text.get(at) == Some(&b' '));
    let zone = || Some((number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?) * 60_000);
    let utc = seconds * 1_000 + ms;
    match text.get(at) {
        Some(b'+') => utc.checked_sub(zone().unwrap_or(0)),
        Some(b'-') => Some(utc + zone().unwrap_or(0)),
        _ => Some(utc),
    }
}
