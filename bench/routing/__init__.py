"""The router's speed against other proxies on this machine; `bench/router` runs it.

`figures` is pure: goals, ratios, tables, JSON. `processes` starts and ends programs on a core, `load`
drives them, `ours` is the product's own data plane, `peers` what it is compared with. `rounds` puts them
together. Nothing here is imported by the product.
"""
