//! Of `cli::commands`: compiled with the library, for it uses what is private there.
use super::*;

fn helps(command: &mut Command) -> Vec<String> {
    command.build();
    let mut texts = vec![super::super::help::of(command)];
    for sub in command.get_subcommands_mut() {
        texts.extend(helps(sub));
    }
    texts
}

#[test]
fn every_help_fits_80_columns() {
    let mut texts = vec![super::super::usage::overview()];
    for entry in ENTRIES {
        texts.extend(helps(&mut entry.command()));
    }
    for line in texts.iter().flat_map(|text| text.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_syntax_of_every_command_is_sound_and_no_name_is_there_twice() {
    let mut seen = Vec::new();
    for entry in ENTRIES {
        entry.command().debug_assert();
        for name in [&[entry.name], entry.aliases].concat() {
            assert!(!seen.contains(&name), "{name}");
            seen.push(name);
        }
    }
}
