# The table of a file that scripts/bench left in benches/results/: the medians, two and two, of
# another way to some bytes and of stratafs's. awk -f benches/table.awk FILE

BEGIN { FS = "\t" }
/^#/ { about[substr($1, 3)] = $2; next }
$1 == "thing" { next }
{ time[$1] = time[$1] " " $3; disk[$1] = disk[$1] " " $4; if ($2 > rounds) rounds = $2 }

function median(numbers,    i, j, n, list, swap) {
    n = split(numbers, list, " ")
    for (i = 1; i <= n; i++)
        for (j = i + 1; j <= n; j++)
            if (list[i] + 0 > list[j] + 0) { swap = list[i]; list[i] = list[j]; list[j] = swap }
    return list[int((n + 1) / 2)]
}

function duration(us) {
    if (us >= 1e6) return sprintf("%.2f s", us / 1e6)
    return sprintf(us < 1e4 ? "%.1f ms" : "%.0f ms", us / 1e3)
}

function size(bytes) {
    if (bytes == 0) return "0"
    return bytes < 1e6 ? sprintf("%.0f KB", bytes / 1e3) : sprintf("%.2f GB", bytes / 1e9)
}

# row WHAT BESIDE THING OURS: left out where one of the two was not measured.
function row(what, beside, thing, ours,    a, b, ratio) {
    if (!(thing in time) || !(ours in time)) return
    a = median(time[thing]); b = median(time[ours])
    if (a > b) ratio = sprintf(a < 20 * b ? "%.1f times faster" : "%.0f times faster", a / b)
    else ratio = sprintf("%.2f times as long", b / a)
    printf "| %s | %s | %s | %s | %s | %s | %s |\n", what, beside, duration(a), duration(b), ratio,
        size(median(disk[thing])), size(median(disk[ours]))
}

END {
    printf "Image of %.2f GB in %d files and %d layers. ", about["bytes"] / 1e9, about["files"],
        about["layers"]
    printf "Docker %s, Linux %s, %d cores; medians of %d.\n\n", about["docker"], about["kernel"],
        about["cores"], rounds
    print "| what | beside | takes | stratafs | that is | writes to disk | stratafs |"
    print "|---|---|---:|---:|---|---:|---:|"
    first = "first byte of `save.tar`"
    row(first ", image looked at before", "`docker save`", "docker-save-first", "save-first")
    row(first ", right after mounting", "`docker save`", "docker-save-first", "save-first-cold")
    row("`cat save.tar`", "`docker save`", "docker-save", "save")
    row("`cat save.tar`, right after mounting", "`docker save`", "docker-save", "save-cold")
    row("`cat save.tar`", "`xargs cat` of the layers' files", "layer-files", "save")
    row("`cat save.tar`", "`cat` of a plain file", "plain", "save")
    row("`cp save.tar`", "`cp` of a plain file", "cp-plain", "cp")
    row("first byte of `export.tar`", "`docker export`", "docker-export-first", "export-first")
    row("`cat export.tar`", "`docker export`", "docker-export", "export")
}
