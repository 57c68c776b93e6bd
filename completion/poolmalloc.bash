# bash completion for poolmalloc: commands, options and their values, as each --help lists them.

# The values that `--OPTION a|b|c` may take, from the help of command $1.
_poolmalloc_values() { poolmalloc "$1" --help 2>/dev/null | sed -nE "s/^ +(-[a-z], )?$2 ([a-z0-9]+(\|[a-z0-9]+)+)\$/\2/p" | tr '|' ' '; }

_poolmalloc_processes() { (cd /proc && printf '%s\n' [0-9]*; cat [0-9]*/comm 2>/dev/null) | grep -v ' ' | sort -u; }

_poolmalloc() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]:-} i words
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ] || [[ $COMP_CWORD = 2 && $command = help ]]; then
    words="$(poolmalloc --help 2>/dev/null | sed -nE 's/^  ([a-z]+) .*/\1/p') --help --version"
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    if [ "${COMP_WORDS[i]}" = -- ]; then # CMD and what it takes itself
      if declare -F _command_offset >/dev/null; then _command_offset $((i + 1)); else mapfile -t COMPREPLY < <(compgen -c -f -- "$current"); fi
      return
    fi
  done
  if [[ $previous = --* ]] && words=$(_poolmalloc_values "$command" "$previous") && [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  elif [[ $current = -* ]]; then
    words=$(poolmalloc "$command" --help 2>/dev/null | grep -oE -- '--[a-z]+(-[a-z]+)*')
    mapfile -t COMPREPLY < <(compgen -W "$words --" -- "$current")
  elif [[ $previous != --* && $command =~ ^(stat|top|active|who|doctor|config)$ ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_poolmalloc_processes)" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -o filenames -F _poolmalloc poolmalloc
