"""The fetcher: hydrates metadata and bars from upstreams, and is the only code of asof that talks to the internet."""
