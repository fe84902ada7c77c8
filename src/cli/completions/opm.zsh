#compdef opm
# zsh completion for opm: a file _opm in $fpath, or `source <(opm completions zsh)`
_opm() {
    local -a found names shown
    found=("${(@f)$(${words[1]} completions zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    (( $#found )) || { _files; return }
    names=("${(@)found%%$'\t'*}")
    shown=("${(@)found/$'\t'/  }")
    compadd -l -d shown -a names
}
if [[ ${funcstack[1]} == _opm ]]; then _opm "$@"; else compdef _opm opm; fi
