//! Of `opm::process::shell`.
use opm::process::shell::*;

#[test]
fn plain_lines_are_split_at_blanks_and_their_quotes_vanish() {
    let cases: [(&str, &[&str]); 20] = [
        ("  node\tserver.js  --port=80 ", &["node", "server.js", "--port=80"]),
        (r#"a 'b c' "d e"f '' """#, &["a", "b c", "d ef", "", ""]),
        (r#"a '$x `y` | "' "it's""#, &["a", "$x `y` | \"", "it's"]),
        (r"a b\ c \$HOME \* \\ \'", &["a", "b c", "$HOME", "*", "\\", "'"]),
        ("a b\\\nc", &["a", "bc"]),
        ("a b\\ ", &["a", "b "]),
        (r#"a "\$x \" \\ \n \'""#, &["a", r#"$x " \ \n \'"#]),
        ("a \"b\\\nc\"", &["a", "bc"]),
        ("a '|' '&' \\; '>' '~' '#'", &["a", "|", "&", ";", ">", "~", "#"]),
        ("a http://h/#x b~ !c d!", &["a", "http://h/#x", "b~", "!c", "d!"]),
        ("env PORT=80 node", &["env", "PORT=80", "node"]),
        ("1A=b c", &["1A=b", "c"]),
        ("'A'=b c", &["A=b", "c"]),
        ("--a=b c", &["--a=b", "c"]),
        ("=b c", &["=b", "c"]),
        ("'if' x", &["if", "x"]),
        ("run if while exec", &["run", "if", "while", "exec"]),
        ("a b\n", &["a", "b"]),
        ("grüße 'das  日本' \u{a0}x", &["grüße", "das  日本", "\u{a0}x"]),
        ("a ''", &["a", ""]),
    ];
    for (line, words) in cases {
        assert_eq!(argv(line).unwrap(), words, "{line:?}");
    }
}

#[test]
fn what_a_shell_would_expand_redirect_or_interpret_is_left_to_it_whole() {
    let operators = "a | b¦a & b¦a; b¦a < b¦a > b¦(a)¦a 2>&1¦a && b¦a\nb";
    let expansions = "a $b¦a `b`¦a *¦a b?¦a [b]¦a ~/b¦a x=~/b¦a {b,c}¦a \"$b\"¦a \"`b`\"¦$a";
    let assignments = "PORT=80 node x.js¦_a1='x y' b¦A+=b c";
    let first_words = "if true¦while x¦! x¦[[ x¦time x¦exec node¦'exec' node¦cd /srv";
    // An apostrophe in these is no unclosed quote.
    let nesting = "a # b¦a # don't¦a \"$(echo \"it's\")\"¦cat <<E\ndon't\nE";
    for lines in [operators, expansions, assignments, first_words, nesting] {
        for line in lines.split('¦') {
            assert_eq!(argv(line).unwrap(), ["/bin/sh", "-c", line], "{line:?}");
        }
    }
}

#[test]
fn what_is_never_closed_is_empty_or_holds_nul_is_no_command() {
    let cases = [
        ("unclosed '", &["a 'b", "a && b 'c"][..]),
        ("unclosed \"", &["a \"b", "a \"b\\"]),
        ("backslash", &["a b\\", "\\"]),
        ("empty", &["", "  ", "\t\n", "''", "\"\" a", "\\\n"]),
        ("NUL", &["a\0b"]),
    ];
    for (reason, lines) in cases {
        for line in lines {
            assert!(argv(line).unwrap_err().contains(reason), "{line:?}");
        }
    }
}

#[test]
fn simple_commands_have_their_words_without_operators_and_redirections() {
    let cases: [(&str, &[&[&str]]); 8] = [
        ("a b>x 2>&1 c | d <e&& f >&- g", &[&["a", "b", "c"], &["d"], &["f", "g"]]),
        (" ;; && # x", &[]),
        (r#""$(dirname "$0")/a b" ${X:-y z}w"#, &[&[r#"$(dirname "$0")/a b"#, "${X:-y z}w"]]),
        ("`c d` e", &[&["`c d`", "e"]]),
        ("a 'b c", &[&["a", "b c"]]),
        ("a \"b c", &[&["a", "b c"]]),
        ("a $(b c", &[&["a", "$(b c"]]),
        ("a b\\", &[&["a", "b"]]),
    ];
    for (line, expected) in cases {
        let words: Vec<Vec<String>> =
            simple_commands(line).into_iter().map(|simple| simple.words).collect();
        assert_eq!(words, expected, "{line:?}");
    }
    let line = simple_commands("a | b || c; d && e & f");
    let secondary: Vec<bool> = line.iter().map(|simple| simple.secondary).collect();
    assert_eq!(secondary, [false, true, true, false, false, false]);
}
