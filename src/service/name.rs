//! Names of services, and the names of files that are made from them.
//!
//! A name that passed [`check_name`] can be told from an id, from `all`, from an option and from
//! a list.
use super::columns::{columns, is_unseen};
use std::fmt::Write as _;

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// The longest result of [`file_name_of`] for a valid name: leaves 25 bytes of the 255 that a
/// file name may have for suffixes such as `-error.log`.
pub const STEM_BYTES_MAX: usize = 230;

/// Says what is wrong with a name for a service, if anything is.
pub fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    let unseen = name.chars().find(|c| is_unseen(*c)).map(u32::from);
    let unseen = unseen.map(|c| format!("has a character that does not print (U+{c:04X})"));
    let is_long = length > NAME_CHARS_MAX;
    let long = is_long.then(|| format!("has {length} characters (at most {NAME_CHARS_MAX})"));
    let first = name.chars().next().unwrap_or_default();
    let wrong = [
        (name.is_empty(), "is empty"),
        (long.is_some(), long.as_deref().unwrap_or_default()),
        (unseen.is_some(), unseen.as_deref().unwrap_or_default()),
        (columns(first) == 0, "begins with a mark that combines with what is before it"),
        (name.contains('/'), "has a slash in it"),
        (name.contains(','), "has a comma in it, which separates targets"),
        (name == "all", "stands for every service"),
        (name.bytes().all(|b| b.is_ascii_digit()), "is only digits, as ids are"),
        (first == '-', "begins with a dash, as options do"),
        (first == '.', "begins with a dot"),
        (name.trim_matches(' ') != name, "begins or ends with a blank"),
    ];
    let Some((_, wrong)) = wrong.into_iter().find(|(is, _)| *is) else { return Ok(()) };
    // Of a name that is far too long the beginning says which it was.
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    Err(format!("bad name {shown:?}: it {wrong}"))
}

/// A file name for a service: injective, so that two services never share a file, with nothing
/// in it but `A-Z a-z 0-9 . _ @ + - %`, and at most [`STEM_BYTES_MAX`] long for a valid name.
///
/// Other bytes become `%XX`. Where that would be too long (64 characters of 4 bytes would need
/// 768) it is `%u` and the code points in 6-bit digits, which is short enough and still exact: a
/// hash would be shorter, but could make two services write to one file.
pub fn file_name_of(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (i, &byte) in name.as_bytes().iter().enumerate() {
        // A leading dot would hide the file, or be a directory's own name.
        let plain =
            byte.is_ascii_alphanumeric() || (b"._@+-".contains(&byte) && (byte, i) != (b'.', 0));
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    match out.len() {
        // No escape is a lone percent sign, so this is nobody else's name.
        0 => "%".to_owned(),
        1..=STEM_BYTES_MAX => out,
        _ => packed(name),
    }
}

/// Two code points are 42 bits, 7 digits: 64 characters make 226 bytes. A last odd one takes 4, so
/// the length says how many there were. No escape begins so: `u` is no hexadecimal digit.
fn packed(name: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let mut out = String::from("%u");
    let mut chars = name.chars();
    while let Some(first) = chars.next() {
        let (bits, count) = match chars.next() {
            Some(second) => (u64::from(u32::from(first)) << 21 | u64::from(u32::from(second)), 7),
            None => (u64::from(u32::from(first)), 4),
        };
        for digit in (0..count).rev() {
            let index = (bits >> (6 * digit)) & 63;
            out.push(char::from(DIGITS[index as usize]));
        }
    }
    out
}
