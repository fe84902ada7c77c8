//! Times by a calendar: `0 3 * * *`, also with seconds before, names, `@daily`, and a time zone
//! as in `TZ=Europe/Berlin 0 3 * * *`. Pure: whoever asks brings the offsets of the zone.
//!
//! Where clocks are put forward or back, what is due at some hours is due once: what falls into a
//! gap when the gap ends, what comes twice at the first time. What is due in every hour goes by
//! real time.
use super::time::date;
use std::fmt;

/// A schedule, and as what it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    zone: Option<String>,
    /// Seconds, minutes, hours, days of the month, months, days of the week: a bit for each.
    fields: [u64; 6],
    /// Days of the month and of the week are both said, so that either will do.
    either_day: bool,
}

/// A field: what it is called, its range, and its names from the first number on.
type Field = (&'static str, u32, u32, &'static [&'static str]);

const FIELDS: [Field; 6] = [
    ("second", 0, 59, &[]),
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &MONTHS),
    ("day of the week", 0, 7, &DAYS),
];
const SECOND: usize = 0;
const MINUTE: usize = 1;
const HOUR: usize = 2;
const DAY: usize = 3;
const MONTH: usize = 4;
const WEEKDAY: usize = 5;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// By how much clocks are put back at most.
const CHANGE_SECS_MAX: i64 = 3 * 3600;
/// Every second of what comes twice, and some changes.
const STEPS_MAX: i64 = CHANGE_SECS_MAX + 100;
const EVERY_HOUR: u64 = (1 << 24) - 1;
const DAY_SECS: i64 = 86_400;
/// The 29th of February comes again within so many days, also around 2100.
const DAYS_MAX: i64 = 8 * 366;

impl Cron {
    /// Reads a schedule. Errors: one line: what is wrong with it, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |reason: String| {
            format!(
                "bad schedule {text:?}: {reason}; want 5 or 6 fields, as in '0 3 * * *', or @daily"
            )
        };
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let zone = words.first().and_then(|word| word.strip_prefix("TZ=")).map(str::to_owned);
        words.drain(..usize::from(zone.is_some()));
        let named = |word: &&str| WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        if let [word] = words[..]
            && let Some((_, means)) = named(&word)
        {
            words = means.split(' ').collect();
        }
        if words.len() == 5 {
            words.insert(SECOND, "0");
        }
        if words.len() != FIELDS.len() {
            let plural = if words.len() == 1 { "" } else { "s" };
            return Err(bad(format!("it has {} field{plural}", words.len())));
        }
        let mut fields = [0; 6];
        for ((bits, word), field) in fields.iter_mut().zip(&words).zip(&FIELDS) {
            *bits =
                bits_of(word, field).ok_or_else(|| bad(format!("{word:?} is no {}", field.0)))?;
        }
        fields[WEEKDAY] |= fields[WEEKDAY] >> 7;
        let is_any = |at: usize| words[at].starts_with(['*', '?']);
        let either_day = !is_any(DAY) && !is_any(WEEKDAY);
        let cron = Self { text: text.trim().to_owned(), zone, fields, either_day };
        match cron.next_civil(0) {
            Some(_) => Ok(cron),
            None => Err(bad("there is no such day".to_owned())),
        }
    }

    /// The time zone that it names.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The first time after `after`, both in Unix seconds. `offset`: by how many seconds local time
    /// is ahead of UTC at some time.
    pub fn next(&self, after: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
        let by_real_time = self.fields[HOUR] == EVERY_HOUR;
        let (mut since, mut ahead) = (after, offset(after));
        let mut local = after + ahead;
        for _ in 0..STEPS_MAX {
            local = self.next_civil(local)?;
            let at = local - ahead;
            if offset(at) == ahead {
                let before = offset(at - CHANGE_SECS_MAX);
                let is_repeated = before > ahead && offset(local - before) == before;
                if by_real_time || !is_repeated {
                    return Some(at);
                }
                continue;
            }
            let mut change = at;
            while change - since > 1 {
                let middle = since + (change - since) / 2;
                *if offset(middle) == ahead { &mut since } else { &mut change } = middle;
            }
            ahead = offset(change);
            if !by_real_time && local < change + ahead {
                return Some(change);
            }
            (since, local) = (change, change + ahead - 1);
        }
        None
    }

    /// The first match after this local time, in seconds since 1970 as if local time were UTC.
    fn next_civil(&self, after: i64) -> Option<i64> {
        let (mut day, mut from) =
            ((after + 1).div_euclid(DAY_SECS), (after + 1).rem_euclid(DAY_SECS));
        for _ in 0..DAYS_MAX {
            if self.has_day(day)
                && let Some(second) = self.next_of_day(from)
            {
                return Some(day * DAY_SECS + second);
            }
            (day, from) = (day + 1, 0);
        }
        None
    }

    fn has(&self, field: usize, value: i64) -> bool {
        self.fields[field] & 1 << value != 0
    }

    fn has_day(&self, day: i64) -> bool {
        let [_, month, of_month] = date(day);
        let days = [self.has(DAY, of_month), self.has(WEEKDAY, (day + 4).rem_euclid(7))];
        let is_it = if self.either_day { days.contains(&true) } else { days == [true; 2] };
        self.has(MONTH, month) && is_it
    }

    /// The first second of a day from `from` on.
    fn next_of_day(&self, from: i64) -> Option<i64> {
        let mut second = from;
        while second < DAY_SECS {
            let (hour, minute) = (second / 3600, second / 60 % 60);
            second = if !self.has(HOUR, hour) {
                (hour + 1) * 3600
            } else if !self.has(MINUTE, minute) {
                (second / 60 + 1) * 60
            } else if !self.has(SECOND, second % 60) {
                second + 1
            } else {
                return Some(second);
            };
        }
        None
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `*`, `1,5`, `mon-fri`, `*/5`, `10-20/2`, `30/10`: a bit for each number.
fn bits_of(word: &str, &(_, least, most, names): &Field) -> Option<u64> {
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|at| Some(u32::try_from(at).ok()? + least));
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        named.or_else(|| text.parse().ok().filter(|it| digits && (least..=most).contains(it)))
    };
    let mut bits = 0;
    for item in word.split(',') {
        let (range, step) =
            item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let step = step
            .map_or(Some(1), |step| step.parse().ok().filter(|step| (1..=most).contains(step)))?;
        let (first, last) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (least, most),
            Some((first, last)) => (number(first)?, number(last)?),
            // From there on, if there is a step.
            None => (number(range)?, if item == range { number(range)? } else { most }),
        };
        if first > last {
            return None;
        }
        (first..=last).step_by(step as usize).for_each(|value| bits |= 1 << value);
    }
    Some(bits)
}
