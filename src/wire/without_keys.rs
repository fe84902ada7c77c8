//! Rows as lists of their fields: `ls` of a thousand services reads half the bytes in half the
//! time. The keys are for people's programs, see [`Row`].
use super::{Id, Row, Status};
use serde::{Deserialize, Deserializer, Serializer};

#[rustfmt::skip]
type Fields = (
    (Id, String, Option<i32>, Option<u64>, u64, Status, Option<f64>, Option<u64>, bool),
    (Option<u32>, u64, bool, Option<String>, bool, Option<String>, String, String,
        Option<String>),
);

/// The same fields in the same order, both ways; a tuple of serde's has at most 16.
#[rustfmt::skip]
macro_rules! fields {
    ($with:ident) => {
        $with!(
            (id, name, pid, uptime_ms, restarts, status, cpu_percent, memory_bytes, watching),
            (processes, generation, adopted, why, ready, next_at, command, cwd, instance_of)
        )
    };
}

pub(super) fn serialize<S: Serializer>(rows: &[Row], to: S) -> Result<S::Ok, S::Error> {
    macro_rules! list {
        (($($first:ident),*), ($($second:ident),*)) => {
            |Row { $($first,)* $($second),* }| (($($first),*), ($($second),*))
        };
    }
    to.collect_seq(rows.iter().map(fields!(list)))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Row>, D::Error> {
    macro_rules! row {
        (($($first:ident),*), ($($second:ident),*)) => {
            |(($($first),*), ($($second),*)): Fields| Row { $($first,)* $($second),* }
        };
    }
    Ok(Vec::deserialize(from)?.into_iter().map(fields!(row)).collect())
}
