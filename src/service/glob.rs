//! Patterns of paths: one without a slash means a file or directory of that name, wherever it is;
//! `**` any number of directories. What is in a directory that is meant is meant, too.
use super::selector::glob_matches;

/// Whether a pattern means a path. One that begins with a slash is for absolute paths, others for
/// those that are relative to the same directory.
pub fn means(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    if !pattern.contains('/') {
        return names.iter().any(|name| glob_matches(pattern, name));
    }
    let mut parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    parts.dedup_by(|one, two| *one == "**" && *two == "**");
    is_begun_by(&parts, &names)
}

fn is_begun_by(parts: &[&str], names: &[&str]) -> bool {
    match (parts, names) {
        ([], _) => true,
        (["**", rest @ ..], _) => (0..=names.len()).any(|skip| is_begun_by(rest, &names[skip..])),
        ([part, parts @ ..], [name, names @ ..]) => {
            glob_matches(part, name) && is_begun_by(parts, names)
        }
        (_, []) => false,
    }
}
