"""A proxy as one writes it in Python: aiohttp on uvloop. Runs in an environment of its own.

asyncio_proxy.py PORT UPSTREAM_PORT
"""

import sys

import aiohttp
import uvloop
from aiohttp import web


async def main(port: int, upstream: int) -> None:
    async def forward(request: web.Request) -> web.Response:
        headers = {name: request.headers[name] for name in ("Content-Type", "Authorization")}
        async with session.request(
            request.method,
            f"http://127.0.0.1:{upstream}{request.path_qs}",
            headers=headers,
            data=await request.read(),
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    app = web.Application(client_max_size=200 * 2**20)
    app.router.add_route("*", "/{path:.*}", forward)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await web._run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
