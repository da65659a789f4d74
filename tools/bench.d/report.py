"""From raw runs to figures: medians, paired ratios, the table on the screen, the JSON."""

import statistics


def paired_ratios(peer_runs, weir_runs, key):
    """Peer over weir, round by round: slow phases of the machine hit both runs of a round."""
    return [
        peer[key] / weir[key]
        for peer, weir in zip(peer_runs, weir_runs)
        if peer and weir and weir[key] > 0
    ]


def median_of(runs, key):
    values = [run[key] for run in runs if run]
    return statistics.median(values) if values else None


def _rounded(value, digits=4):
    return None if value is None else round(value, digits)


def fastest(contenders, runs, peer, access_log, key):
    """The variant of the peer with the lowest median, or None when none has a result."""
    candidates = [
        c
        for c in contenders
        if c.peer == peer
        and c.access_log == access_log
        and median_of(runs[c.label], key) is not None
    ]
    return min(candidates, key=lambda c: median_of(runs[c.label], key), default=None)


def summarise(contenders, runs, key, extras):
    """`runs`: label -> one result per round (None where a run failed). `key` is what is compared,
    `extras` the other fields whose medians are of interest."""
    summary = {"ratio": {}, "range": {}, "ratio_logged": {}, "range_logged": {}, key: {}}
    summary["variant"] = {}
    weir_runs = runs.get("weir")
    peers = list(dict.fromkeys(c.peer for c in contenders if c.peer != "weir"))
    for peer in peers:
        for access_log, suffix in ((False, ""), (True, "_logged")):
            best = fastest(contenders, runs, peer, access_log, key)
            if best is None:
                continue
            if not access_log:
                summary[key][peer] = _rounded(median_of(runs[best.label], key))
                summary["variant"][peer] = best.label
            ratios = paired_ratios(runs[best.label], weir_runs, key) if weir_runs else []
            if ratios:
                summary["ratio" + suffix][peer] = round(statistics.median(ratios), 3)
                summary["range" + suffix][peer] = [round(min(ratios), 3), round(max(ratios), 3)]
    if weir_runs and median_of(weir_runs, key) is not None:
        summary[key]["weir"] = _rounded(median_of(weir_runs, key))
    for field in (key, *extras):
        by_label = {c.label: _rounded(median_of(runs[c.label], field), 2) for c in contenders}
        if field == key:
            summary["by_contender"] = by_label
        else:
            summary[field] = by_label
    summary["errors"] = {
        c.label: sum(run["errors"] for run in runs[c.label] if run) for c in contenders
    }
    summary["failed_runs"] = {
        c.label: sum(run is None for run in runs[c.label]) for c in contenders
    }
    return summary


def problems_of(name, summary):
    """Whatever makes the figures unfit for use, as sentences."""
    found = []
    for label, count in summary["errors"].items():
        if count:
            found.append(f"{name}: {label}: {count} wrong or missing responses")
    for label, count in summary["failed_runs"].items():
        if count:
            found.append(f"{name}: {label}: {count} runs failed")
    for label, share in summary.get("logged_share", {}).items():
        if share is not None and share < 0.99:
            found.append(f"{name}: {label}: only {share:.0%} of the requests are in its access log")
    return found


def _cell(value, form):
    return "-" if value is None else form.format(value)


def ratio_cell(contender, contenders, runs, key):
    if contender.label == "weir" or "weir" not in runs:
        return "-"
    ratios = paired_ratios(runs[contender.label], runs["weir"], key)
    if not ratios:
        return "-"
    text = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
    best = fastest(contenders, runs, contender.peer, contender.access_log, key)
    rivals = [c for c in contenders if c.peer == contender.peer]
    several = sum(c.access_log == contender.access_log for c in rivals) > 1
    several = several and contender.peer != "weir"
    return text + (" *" if several and best is contender else "")


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  " + "  ".join(cells), flush=True)


def print_load(title, contenders, runs, summary):
    print(f"\n{title}")
    head = "|CPU us/req|x weir [range]|syscalls/req|p50 us|p99 us|req/s|busy|errors"
    rows = [head.split("|")]
    syscalls = summary.get("syscalls_per_request", {})
    for c in contenders:
        label = c.label
        rows.append(
            [
                label,
                _cell(summary["by_contender"][label], "{:.2f}"),
                ratio_cell(c, contenders, runs, "us_per_request"),
                _cell(syscalls.get(label), "{:.2f}"),
                _cell(summary["p50_us"][label], "{:.0f}"),
                _cell(summary["p99_us"][label], "{:.0f}"),
                _cell(summary["rps"][label], "{:.0f}"),
                _cell(summary["busy"][label], "{:.2f}"),
                str(summary["errors"][label]),
            ]
        )
    print_table(rows)


def print_idle(title, contenders, runs, summary):
    print(f"\n{title}")
    head = "|bytes/connection|x weir [range]|MiB at start|MiB warm|MiB idle|errors"
    rows = [head.split("|")]
    for c in contenders:
        label = c.label
        memory = [
            _cell(None if summary[f][label] is None else summary[f][label] / (1 << 20), "{:.1f}")
            for f in ("rss_start", "rss_warm", "rss_idle")
        ]
        rows.append(
            [
                label,
                _cell(summary["by_contender"][label], "{:.0f}"),
                ratio_cell(c, contenders, runs, "bytes_per_connection"),
                *memory,
                str(summary["errors"][label]),
            ]
        )
    print_table(rows)


def print_wrk(contenders, runs):
    print("\n  wrk (a sanity check: its CPU is the bottleneck, the spread is large)")
    rows = [["", "CPU us/req", "x weir [range]", "req/s", "errors"]]
    for c in contenders:
        rows.append(
            [
                c.label,
                _cell(median_of(runs[c.label], "us_per_request"), "{:.2f}"),
                ratio_cell(c, contenders, runs, "us_per_request"),
                _cell(median_of(runs[c.label], "rps"), "{:.0f}"),
                str(sum(run["errors"] for run in runs[c.label] if run)),
            ]
        )
    print_table(rows)
