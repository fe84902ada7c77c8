//! The man pages and the program say the same: commands, aliases, flags, exit codes, variables,
//! both ways.
#![expect(
    clippy::unwrap_used,
    reason = "a test's way to fail; clippy exempts test functions only, not what they call"
)]

use opm::cli::commands::ENTRIES;
use opm::service::options::{Group, OPTIONS, text_of};
use opm::wire::file::OWN_KEYS;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Commands that have a door before clap.
const OUTSIDE_CLAP: &[&str] = &["init", "help"];
/// Flags that are explained once for all commands.
const EVERYWHERE: &[&str] = &["no-daemon-start", "help", "h"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    let path = root().join("man").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every page, by its file's name.
fn pages() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(root().join("man")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_page = |name: &String| name.ends_with(|c: char| c.is_ascii_digit());
    names.filter(is_page).map(|name| (name.clone(), page(&name))).collect()
}

/// A command's names and flags, as the page or the program has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interface {
    aliases: BTreeSet<String>,
    flags: BTreeSet<String>,
}

/// The word behind each `macro` of a line: `.It Fl n , Fl -name Ar name`.
fn behind<'a>(line: &'a str, macro_name: &str) -> Vec<&'a str> {
    let words: Vec<&str> = line.strip_prefix('.').unwrap_or_default().split(' ').collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == macro_name);
    pairs.map(|pair| pair[1]).collect()
}

/// The flags of a line, without dashes; `Fl -` alone is the end of options.
fn flags_of(line: &str) -> impl Iterator<Item = String> {
    behind(line, "Fl")
        .into_iter()
        .map(|flag| flag.trim_start_matches('-').to_owned())
        .filter(|flag| !flag.is_empty())
}

/// The lines of a section, without its heading.
fn section<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let found: Vec<&str> = lines.take_while(|line| !line.starts_with(".Sh")).collect();
    assert!(!found.is_empty(), "no section '{heading}'");
    found
}

/// The commands of opm(1): `.It Cm daemon stop Op Fl -services`, and what follows each.
fn documented() -> BTreeMap<String, Interface> {
    let text = page("opm.1");
    let lines = section(&text, ".Sh COMMANDS");
    let lines = lines.into_iter().take_while(|line| !line.starts_with(".Ss"));
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    let mut current = String::new();
    for line in lines {
        if let Some(rest) = line.strip_prefix(".It Cm ") {
            let name =
                rest.split(' ').take_while(|word| word.starts_with(|c: char| c.is_lowercase()));
            current = name.collect::<Vec<_>>().join(" ");
        }
        let interface = found.entry(current.clone()).or_default();
        if line.starts_with(".Pq alias") {
            interface.aliases.extend(behind(line, "Cm").into_iter().map(ToOwned::to_owned));
        }
        interface.flags.extend(flags_of(line));
    }
    found.remove("");
    found
}

fn interface_of(command: &clap::Command, aliases: BTreeSet<String>) -> Interface {
    let mut flags = BTreeSet::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        flags.extend(argument.get_long().map(ToOwned::to_owned));
        flags.extend(argument.get_short().map(String::from));
        flags.extend(argument.get_all_aliases().unwrap_or_default().into_iter().map(Into::into));
    }
    flags.retain(|flag| !EVERYWHERE.contains(&flag.as_str()));
    Interface { aliases, flags }
}

/// The commands that clap knows; those of `daemon` each by themselves.
fn understood() -> BTreeMap<String, Interface> {
    let mut found = BTreeMap::new();
    for entry in ENTRIES {
        let command = entry.command();
        let aliases = entry.aliases.iter().map(|alias| (*alias).to_owned());
        if !command.has_subcommands() {
            found.insert(entry.name.to_owned(), interface_of(&command, aliases.collect()));
        }
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let aliases = sub.get_all_aliases().map(ToOwned::to_owned).collect();
            let name = format!("{} {}", entry.name, sub.get_name());
            found.insert(name, interface_of(sub, aliases));
        }
    }
    found
}

#[test]
fn every_command_alias_and_flag_is_in_opm_1_and_no_other() {
    let mut documented = documented();
    for name in OUTSIDE_CLAP {
        assert!(documented.remove(*name).is_some(), "opm(1) lacks {name}");
    }
    let understood = understood();
    let names = |of: &BTreeMap<String, Interface>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&documented), names(&understood), "opm(1), then the program");
    for (name, interface) in &understood {
        let found = &documented[name];
        assert_eq!(found, interface, "{name}: opm(1), then the program");
    }
}

/// The keys of the process file are the options of the table, and those that say what it is.
#[test]
fn every_key_and_its_default_are_in_opm_file_5_and_no_other() {
    let text = page("opm-file.5");
    let keys = text.split_once(".Ss Keys").unwrap().1.split_once(".El").unwrap().0;
    let entries: Vec<(&str, &str)> =
        keys.split(".It Cm ").skip(1).map(|entry| entry.split_once('\n').unwrap()).collect();
    let visible = OPTIONS.iter().filter(|opt| opt.group != Group::Hidden);
    let wanted: BTreeSet<&str> = visible.clone().map(|opt| opt.key).chain(OWN_KEYS).collect();
    let said: BTreeSet<&str> = entries.iter().map(|(key, _)| *key).collect();
    assert_eq!(said, wanted, "opm-file(5), then the program");
    for opt in visible.filter(|opt| !opt.default().is_null()) {
        let entry = entries.iter().find(|(key, _)| *key == opt.key).unwrap().1;
        let default = text_of(&opt.default());
        assert!(entry.contains(&default), "{}", opt.key);
    }
}

#[test]
fn flags_for_every_command_are_among_the_options() {
    let text = page("opm.1");
    let options = section(&text, ".Sh OPTIONS");
    let found: BTreeSet<String> = options.into_iter().flat_map(flags_of).collect();
    let wanted =
        ["no-daemon-start", "h", "help", "V", "v", "version", "verbose"].map(ToOwned::to_owned);
    assert_eq!(found, BTreeSet::from(wanted));
}

#[test]
fn opm_8_names_no_flag_that_is_not_there() {
    let known: BTreeSet<String> = understood().into_values().flat_map(|i| i.flags).collect();
    let text = page("opm.8");
    let named: BTreeSet<String> = text.lines().flat_map(flags_of).collect();
    assert!(!named.is_empty());
    assert!(named.is_subset(&known), "{:?}", named.difference(&known).collect::<Vec<_>>());
}

#[test]
fn every_exit_code_is_in_opm_1_and_no_other() {
    let source = std::fs::read_to_string(root().join("src/wire/code.rs")).unwrap();
    let codes: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.split_once("= "))
        .map(|(_, code)| code)
        .collect();
    let text = page("opm.1");
    let lines = section(&text, ".Sh EXIT STATUS");
    let said: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert!(codes.len() > 5);
    assert_eq!(said, codes);
}

/// Variables of ours in a text: `OPM_` and at least one more letter.
fn variables(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_name(c))
        .filter(|word| word.starts_with("OPM_") && word.len() > 4)
        .map(ToOwned::to_owned)
        .collect()
}

/// The program's own text: no comment, no unit test.
fn program_text() -> String {
    let mut text = String::new();
    let mut queue = vec![root().join("src")];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
                continue;
            }
            if path.ends_with("tests.rs") || path.ends_with("fuzz.rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            lines.for_each(|line| text.extend([line, "\n"]));
        }
    }
    text
}

#[test]
fn every_variable_of_ours_is_in_a_page_and_no_other() {
    let read = variables(&program_text());
    let pages = pages();
    let said: BTreeSet<String> = pages.values().flat_map(|text| variables(text)).collect();
    assert!(read.contains("OPM_HOME"));
    assert_eq!(said, read, "the pages, then the program");
    let hidden = ["OPM_WITHOUT", "OPM_LISTENER", "OPM_CRASHED_AT", "OPM_DEPARTED", "OPM_RELOAD"];
    let first = variables(&page("opm.1"));
    let leaked: Vec<&&str> = hidden.iter().filter(|name| first.contains(**name)).collect();
    assert!(leaked.is_empty(), "for opm(8) alone: {leaked:?}");
}

/// A macro of mdoc in a heading is not that word, and of a name of several words a bare `.Nm`
/// repeats the first or all, by the formatter. No lint says so.
#[test]
fn headings_and_synopses_read_alike_in_every_formatter() {
    let macros = ["In", "An", "At", "No", "Ns", "Of", "On", "Or", "Up"];
    for (name, text) in pages() {
        let headings =
            text.lines().filter(|line| line.starts_with(".Ss ") || line.starts_with(".Sh "));
        for heading in headings {
            let word = heading.split(' ').find(|word| macros.contains(word));
            assert_eq!(word, None, "{name}: {heading}");
        }
        let is_bare = text.lines().any(|line| line == ".Nm");
        let is_long = |line: &str| line.starts_with(".Nm ") && line.split(' ').count() > 2;
        let named = section(&text, ".Sh NAME").into_iter().any(is_long);
        assert!(!(is_bare && named), "{name}: a bare .Nm repeats a name of several words");
    }
}

#[test]
fn pages_refer_to_pages_that_are_there() {
    let pages = pages();
    for (name, text) in &pages {
        for line in text.lines().filter(|line| line.starts_with(".Xr opm")) {
            let mut words = line.split(' ').skip(1);
            let (to, number) = (words.next().unwrap(), words.next().unwrap());
            assert!(pages.contains_key(&format!("{to}.{number}")), "{name}: {line}");
        }
    }
}

/// `init` is parsed by hand: what its help names at the beginning of a line.
#[test]
fn every_flag_of_init_is_in_opm_init_1_and_no_other() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_opm"));
    let output = command.args(["init", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let words = lines.flat_map(|line| line.trim_start().split("  ").take(1));
    let flags = words.flat_map(|line| line.split([',', ' ']));
    let understood: BTreeSet<&str> = flags
        .filter(|word| word.starts_with('-'))
        .map(|flag| flag.trim_start_matches('-'))
        .collect();
    let text = page("opm-init.1").replace(r"\-", "-");
    let tags = text.lines().filter(|line| line.starts_with(".It Fl"));
    let named: BTreeSet<String> = tags.flat_map(flags_of).collect();
    let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    assert!(understood.len() > 10);
    assert_eq!(named, understood, "opm-init(1), then the program");
}

/// What doctor calls the kernel's interfaces, and `OPM_WITHOUT` switches off.
#[test]
fn every_tier_is_explained_in_opm_8() {
    let text = page("opm.8");
    let doctor = section(&text, ".Sh DOCTOR");
    for (name, _) in opm::sys::Features::ALL.each() {
        assert!(doctor.contains(&format!(".It {name}").as_str()), "{name}");
    }
    let all = doctor.iter().find(|line| line.starts_with(".It pidfd-inode ,")).unwrap();
    assert_eq!(all.split(" , ").count(), opm::sys::Features::ALL.each().len());
}

/// Every status word and every event that the program has is explained.
#[test]
fn status_words_and_events_are_explained_in_opm_1() {
    let text = page("opm.1");
    let source = std::fs::read_to_string(root().join("src/wire/mod.rs")).unwrap();
    let words = source.split_once("pub fn word(self)").unwrap().1;
    let words = words.split_once("}\n    }").unwrap().0;
    let words: Vec<&str> = words.split('"').skip(1).step_by(2).collect();
    assert_eq!(words.len(), 6);
    for word in words {
        assert!(text.contains(&format!(".It Sy {word}\n")), "{word}");
    }
    let events = section(&text, ".Sh EVENTS");
    let doc = source.split_once("/// `spawned ").unwrap().1.split_once('`').unwrap().0;
    let mut wanted: Vec<&str> = doc.split(' ').collect();
    wanted.insert(0, "spawned");
    let said: Vec<&str> = events.iter().filter_map(|line| line.strip_prefix(".It Cm ")).collect();
    assert_eq!(said, wanted);
}
