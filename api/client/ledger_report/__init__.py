"""A report of a ledger for people who audit: who did what, when, and what came of it, read from the log alone.

    sources     where the log and the archive of its published heads come from: a server, or a folder
    heads       the archive, checked; when an entry became public, by witnesses and by the server's clock
    reading     the whole log, checked against its head and against every published head before it
    entries     what one entry says, in words, and whom it is about
    rows        one row an entry, with what became of it later
    report      the rows of a period and of a clinic, and the facts around them
    csv_file, html_page, pdf_file   the report as files; activity is the picture in the last two
    manifest    the signed note over these files
    files       the files made, written once, read again
    check       a finished report, compared with its note and with the ledger

What never reached the ledger is in no report: requests that were refused, and who has read what. A log is read once,
page by page. Kept in memory are the tree's right edge, the decoded bodies of the entries, and the published heads.
"""
