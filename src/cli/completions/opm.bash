# bash completion for opm: `source <(opm completions bash)`
_opm() {
    local line word
    COMPREPLY=()
    while IFS= read -r line; do
        word=${line%%$'\t'*}
        COMPREPLY+=("$(printf %q "$word")")
    done < <("${COMP_WORDS[0]}" completions bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _opm opm
