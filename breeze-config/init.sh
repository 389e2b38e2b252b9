# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Sourced by Breeze's entry points: those of `breeze shell` and `start-airflow` have set -u -o pipefail, that of
# `breeze exec` has set -e as well. So nothing in here may fail, exit, or change an option of the shell, and all
# of it may happen again.

# The directory of this file, wherever it was copied to.
PATCHSET_BREEZE_CONFIG="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" >/dev/null && pwd)"
export PATCHSET_BREEZE_CONFIG

# Memory of the running Airflow processes by role.
pss() {
    python -I "${PATCHSET_BREEZE_CONFIG}/pss.py" "$@"
}
# The entry points end with exec bash, and tmux starts further shells: they know only what is exported.
export -f pss

# Breeze sets the folder before it sources this file. A Dag that was changed there since is left alone.
_patchset_copy_dags() {
    local folder="${AIRFLOW__CORE__DAGS_FOLDER:-}"
    [[ -n ${folder} ]] || return 0
    if ! { mkdir -p -- "${folder}" && cp -p --update -- "${PATCHSET_BREEZE_CONFIG}"/dags/*.py "${folder}/"; }; then
        echo "init.sh: the Dags could not be copied to ${folder}; copy them there yourself" >&2
    fi
}
_patchset_copy_dags
unset -f _patchset_copy_dags
