//! Which rows `ls` and `top` show, and in what order: by the keys of their JSON. Pure.
use crate::service::options::text_of;
use crate::wire::{Row, Status};
use serde_json::Value;
use std::cmp::Ordering;

/// The keys of a row; those behind a slash are called by what stands before it, too.
const KEYS: &str = "id name pid uptime/uptime_ms restarts status cpu/cpu_percent mem/memory_bytes \
    watching processes generation adopted why ready next/next_at command cwd";

const STATUSES: &str = "online, starting, stopping, waiting, stopped, errored";

fn key(word: &str) -> Result<&'static str, String> {
    let known = KEYS.split(' ').map(|key| key.split_once('/').unwrap_or((key, key)));
    let found = known.clone().find(|(short, long)| word == *short || word == *long);
    let all = || known.map(|(short, _)| short).collect::<Vec<_>>().join(", ");
    found.map(|(_, long)| long).ok_or_else(|| format!("'{word}' is no key (one of {})", all()))
}

/// By which key, and whether the greatest comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sort {
    key: &'static str,
    falls: bool,
}

impl Sort {
    /// Reads `cpu` or `cpu:desc`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (word, order) = text.split_once(':').unwrap_or((text, "asc"));
        match order {
            "asc" | "desc" => Ok(Self { key: key(word)?, falls: order == "desc" }),
            _ => Err(format!("'{order}' is no order (asc or desc)")),
        }
    }

    pub(super) fn apply(self, rows: &mut Vec<Row>) {
        let mut keyed: Vec<(Value, Row)> =
            rows.drain(..).map(|row| (value(&row, self.key), row)).collect();
        keyed.sort_by(|(a, _), (b, _)| {
            let order = compare(a, b);
            if self.falls { order.reverse() } else { order }
        });
        rows.extend(keyed.into_iter().map(|(_, row)| row));
    }
}

/// What is not known comes first.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => b.is_null().cmp(&a.is_null()).then_with(|| text_of(a).cmp(&text_of(b))),
    }
}

fn value(row: &Row, key: &str) -> Value {
    serde_json::to_value(row).map_or(Value::Null, |mut row| row[key].take())
}

/// A key, and the values of it that are shown.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    key: &'static str,
    values: Vec<String>,
}

impl Filter {
    /// Reads `status=errored,waiting`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (word, values) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        let key = key(word)?;
        let values: Vec<String> = values.split(',').map(ToOwned::to_owned).collect();
        let is_status = |word: &String| serde_json::from_value::<Status>((**word).into()).is_ok();
        match values.iter().find(|word| key == "status" && !is_status(word)) {
            Some(word) => Err(format!("'{word}' is no status (one of {STATUSES})")),
            None => Ok(Self { key, values }),
        }
    }

    pub(super) fn shows(&self, row: &Row) -> bool {
        self.values.contains(&text_of(&value(row, self.key)))
    }
}
