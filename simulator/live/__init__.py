"""The live page: charts, figures and a stop button for a run that still goes on, in a process that the run does not feel.

`watched` is what the page reads of a run: shared memory alone. `history` makes rows of it, `picture` makes figures and charts of
those, `metrics` makes Prometheus text. `app` has the routes, `token` who may use them, `viewers` the streams, `page` the HTML.
`channel` is what the run tells the page and the page the run; `server` is the body of the process.
"""
