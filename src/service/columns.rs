//! How many columns of a terminal a character takes, and which are not seen at all. Pure.
use unicode_width::UnicodeWidthChar;

/// What shows nothing, or only as a blank: Default_Ignorable_Code_Point, separators, format
/// characters, the fillers and nulls of scripts, private characters, and those past all planes in
/// use: where each range begins and the next number after its end.
const UNSEEN: &[u32] = &[
    0xad, 0xae, 0x34f, 0x350, 0x61c, 0x61d, 0x115f, 0x1161, 0x17b4, 0x17b6, 0x180b, 0x1810, 0x200b,
    0x2010, 0x2028, 0x202f, 0x2060, 0x2070, 0x2800, 0x2801, 0x3164, 0x3165, 0xe000, 0xf900, 0xfdd0,
    0xfdf0, 0xfe00, 0xfe10, 0xfeff, 0xff00, 0xffa0, 0xffa1, 0xfff0, 0xfffc, 0x13430, 0x13460,
    0x1bca0, 0x1bca4, 0x1d159, 0x1d15a, 0x1d173, 0x1d17b, 0xe0000, 0x110000,
];

/// Columns that a terminal uses for `c`.
pub fn columns(c: char) -> usize {
    if c.is_ascii() { 1 } else { c.width().unwrap_or(1) }
}

/// Whether nothing is seen of `c`, or what looks like a blank and is none.
pub fn is_unseen(c: char) -> bool {
    if (' '..='~').contains(&c) {
        return false;
    }
    // Behind an odd number of bounds is within a range.
    let is_listed = UNSEEN.partition_point(|bound| *bound <= u32::from(c)) % 2 == 1;
    let is_blank = c.is_whitespace() && c != ' ';
    // U+FFFE and U+FFFF of each plane are no characters.
    c.is_control() || is_blank || is_listed || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
#[path = "../../tests/inner/service_columns.rs"]
mod tests;
