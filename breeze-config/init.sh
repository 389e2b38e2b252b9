# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Sourced by Breeze's entry points: those of `breeze shell` and `start-airflow` have set -u -o pipefail, that of
# `breeze exec` has set -e as well. So nothing in here may fail, exit, or change an option of the shell, and all
# of it may happen again.

# Breeze sets the folder before it sources this file. A Dag that was changed there since is left alone.
_patchset_copy_dags() {
    local folder="${AIRFLOW__CORE__DAGS_FOLDER:-}" here
    [[ -n ${folder} ]] || return 0
    here="$(dirname -- "${BASH_SOURCE[0]}")"
    if ! { mkdir -p -- "${folder}" && cp -p --update -- "${here}"/dags/*.py "${folder}/"; }; then
        echo "init.sh: cannot copy the Dags to ${folder}; copy them there yourself" >&2
    fi
}
_patchset_copy_dags
unset -f _patchset_copy_dags
