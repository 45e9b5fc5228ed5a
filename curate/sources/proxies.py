"""The proxies that the environment states."""

from __future__ import annotations

import ipaddress
from urllib.request import getproxies_environment

from curate.schema.errors import FetchError


def proxy_of(scheme: str, host: str, port: int) -> str | None:
    """The proxy for an address: `http_proxy` or `https_proxy`, else `all_proxy`, unless `no_proxy` excepts the host.

    The variables are read in lower and upper case, lower first; `HTTP_PROXY` is not where `REQUEST_METHOD` is, since a
    client of a CGI script could set it. `no_proxy` holds names (each with its subdomains), addresses, networks such as
    10.0.0.0/8, the first two also with a port, or `*`.

    Raises:
        FetchError: the proxy speaks neither HTTP nor HTTPS.
    """
    stated = getproxies_environment()
    proxy = stated.get(scheme) or stated.get("all")
    host = host.strip("[]").rstrip(".")
    if not proxy or any(_excepts(item.strip().lower(), host, port) for item in stated.get("no", "").split(",")):
        return None
    kind, separator, _ = proxy.lower().partition("://")
    if separator and kind not in ("http", "https"):
        raise FetchError(f"the environment states a {kind} proxy: only http and https proxies are used")
    return proxy if separator else f"http://{proxy}"


def _excepts(item: str, host: str, port: int) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(item, strict=False)
    except ValueError:  # one of them is a name, or has a port
        name = item.removesuffix(f":{port}").removeprefix("*").removeprefix(".").strip("[]")
        return item == "*" or (name != "" and f".{host}".endswith(f".{name}"))


def literal(host: str) -> str | None:
    """The address that a host of a URL spells out, or None for a name."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None
