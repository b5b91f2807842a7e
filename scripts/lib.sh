# What scripts share.
# shellcheck shell=bash

# need PACKAGE...: installs the Debian packages that are missing.
need() {
    local package missing=()
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} != 0 ] || return 0
    echo "installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" >/dev/null
}
