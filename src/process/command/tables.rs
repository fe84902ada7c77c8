//! What is known of the programs that run other programs: which of their words are theirs.
//!
//! Data only. Lists are words with blanks between them. An option that is not listed takes no
//! value, which is right for most of them.

pub(super) fn has(list: &str, word: &str) -> bool {
    !word.is_empty() && list.split(' ').any(|known| known == word)
}

/// A program that runs the command that follows its own options.
pub(super) struct Wrapper {
    pub(super) names: &'static str,
    /// The first word after the name must be one of these, if there are any: `bundle exec`.
    pub(super) verbs: &'static str,
    /// Short options that take a value.
    pub(super) values: &'static str,
    /// Long options whose value may be the next word.
    pub(super) long: &'static str,
    /// Words before the command that are neither options nor part of it: `timeout 5`.
    pub(super) skip: usize,
    /// The value of its option `-c` is a line for a shell.
    pub(super) takes_line: bool,
}

const fn wrapper(
    names: &'static str,
    values: &'static str,
    long: &'static str,
    skip: usize,
) -> Wrapper {
    Wrapper { names, verbs: "", values, long, skip, takes_line: false }
}

const SETPRIV_LONG: &str = "reuid regid ruid rgid euid egid groups inh-caps ambient-caps \
                            bounding-set securebits pdeathsig";

/// The `-S` of `env` has code of its own.
pub(super) const WRAPPERS: &[Wrapper] = &[
    wrapper("nohup setsid command builtin busybox valgrind with-contenv cross-env", "", "", 0),
    wrapper("env", "uC", "unset chdir", 0),
    wrapper("stdbuf", "ioe", "input output error", 0),
    wrapper("exec", "a", "", 0),
    wrapper("time gtime", "fo", "format output", 0),
    wrapper("tini", "pe", "", 0),
    wrapper("dumb-init", "r", "rewrite", 0),
    wrapper("nice", "n", "adjustment", 0),
    wrapper("ionice", "cn", "class classdata", 0),
    wrapper("timeout gtimeout", "sk", "signal kill-after", 1),
    wrapper("taskset", "", "", 1),
    wrapper("chrt", "TPD", "sched-runtime sched-period sched-deadline", 1),
    wrapper("numactl", "NmCipl", "", 0),
    wrapper("strace", "oespaEuSPbIOX", "", 0),
    wrapper("sudo doas", "ugpCDhrtTRU", "user group prompt chdir host chroot other-user", 0),
    wrapper("setpriv prlimit", "", SETPRIV_LONG, 0),
    wrapper("chroot gosu su-exec setuidgid s6-setuidgid envdir s6-envdir", "", "", 1),
    wrapper("chpst", "uUbepm/onlfcr", "", 0),
    Wrapper { takes_line: true, ..wrapper("su runuser script", "ugGsw", "user group shell", 1) },
    Wrapper { takes_line: true, ..wrapper("flock", "wE", "wait timeout conflict-exit-code", 1) },
    Wrapper {
        takes_line: true,
        ..wrapper("npx bunx uvx pipx", "p", "package from with python", 0)
    },
    Wrapper {
        verbs: "exec x dlx",
        takes_line: true,
        ..wrapper("npm pnpm yarn", "p", "package", 0)
    },
    Wrapper {
        verbs: "exec run",
        ..wrapper("bundle poetry pipenv uv pipx", "pc", "with python env-file project directory", 0)
    },
];

/// A program that runs a script, which is its first word that is no option.
pub(super) struct Interpreter {
    /// Without a version: `python` stands for `python3.11` too.
    pub(super) names: &'static str,
    /// Words before the script that only say what to do with it: `node inspect x.js`.
    pub(super) verbs: &'static str,
    /// Short options that take a value, in the same word or the next.
    pub(super) values: &'static str,
    /// Short options that take a value in the same word only.
    pub(super) glued: &'static str,
    /// Short options whose value is what runs: `-m http.server`.
    pub(super) subject: &'static str,
    /// Short options whose value is code: there is no script.
    pub(super) code: &'static str,
    /// Long options whose value may be the next word; `eval` and `print` mean code everywhere.
    pub(super) long: &'static str,
    /// A word is a script only with an extension: `bun run dev` runs no file called dev.
    pub(super) by_extension: bool,
}

const ANY: Interpreter = Interpreter {
    names: "",
    verbs: "",
    values: "",
    glued: "",
    subject: "",
    code: "",
    long: "",
    by_extension: false,
};

/// Any other is a program like all: the first word with a script's extension is what it runs.
pub(super) const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: "node nodejs tsx ts-node",
        verbs: "inspect debug watch",
        values: "rCPO",
        code: "ep",
        long: "require import loader experimental-loader env-file env-file-if-exists conditions \
               title input-type openssl-config watch-path disable-warning project tsconfig",
        ..ANY
    },
    Interpreter {
        names: "deno bun",
        verbs: "run serve",
        values: "c",
        code: "e",
        long: "config import-map preload env-file cwd lock cert location",
        by_extension: true,
        ..ANY
    },
    Interpreter { names: "python pypy pythonw", values: "WXQ", subject: "m", code: "c", ..ANY },
    Interpreter {
        names: "ruby jruby",
        values: "IrCE",
        glued: "WKFxTi0",
        code: "e",
        long: "encoding external-encoding internal-encoding",
        ..ANY
    },
    Interpreter { names: "perl", values: "I", glued: "iFCDdMmx0V", code: "eE", ..ANY },
    Interpreter {
        names: "php php-cgi",
        values: "Stcdz",
        subject: "fF",
        code: "rRBE",
        long: "php-ini define server docroot",
        ..ANY
    },
    Interpreter { names: "lua luajit", values: "el", glued: "jO", ..ANY },
    Interpreter {
        names: "dotnet mono",
        verbs: "exec",
        long: "runtimeconfig depsfile additionalprobingpath fx-version roll-forward",
        by_extension: true,
        ..ANY
    },
];

/// Shells: what they run matters, never they themselves.
pub(super) const SHELLS: &str = "sh bash dash zsh ksh mksh ash fish csh tcsh rbash";

/// Options of `java` whose value is the next word.
pub(super) const JAVA_VALUES: &str = "\
    -cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules \
    --add-opens --add-exports --add-reads --patch-module --limit-modules \
    --enable-native-access --source";

/// What a shell does to itself, beside its builtins.
pub(super) const SILENT: &str = "[ false popd pushd test true";

/// Programs that prepare, pause or filter: beside any other command they are not the subject.
pub(super) const MODEST: &str = "\
    awk basename cat chmod chown cp cut date dirname echo find grep head id install kill \
    killall ln logger ls mkdir mktemp mv pkill printf pwd rm rmdir sed sleep sort sync tail \
    tee touch tr uname wc which";

/// Options whose value is a file that is only read: `gunicorn -c conf.py` is about gunicorn.
pub(super) const CONFIG: &str = "-c -C --config --conf --configuration --config-file --config-path";

/// Extensions of scripts, in lower case.
pub(super) const SCRIPT_EXTENSIONS: &str = "\
    js mjs cjs jsx ts mts cts tsx py pyc pyw pyz sh bash zsh fish ksh csh rb pl psgi php \
    phar lua r jl tcl exs escript groovy rkt scm ps1 go";

/// Extensions of programs that something else runs, or that say nothing in a name.
pub(super) const PROGRAM_EXTENSIONS: &str = "jar war dll exe appimage bin";

/// Programs that start others in a session of PAM.
pub(super) const MARK_REMOVERS: &[&str] =
    &["su", "sudo", "runuser", "login", "doas", "pkexec", "machinectl"];
