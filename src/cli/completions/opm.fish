# fish completion for opm: `opm completions fish | source`
function __opm_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] completions fish -- $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c opm -f -a '(__opm_complete)'
