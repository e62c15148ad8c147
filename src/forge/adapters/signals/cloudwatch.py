"""`cloudwatch`: Amazon CloudWatch, asked with metric math or Metrics Insights (`GetMetricData`).

Requests are signed by botocore (Signature Version 4), which also finds the credentials where AWS' own tools find
them: environment, profile, container or instance role. Forge never sees or stores them.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.queried import Points, QueriedSource, Queries, backslashed, number
from forge.adapters.signals.registry import SourceContext
from forge.model.plan import SourcePlan

if TYPE_CHECKING:
    from botocore.credentials import Credentials

TARGET = "GraniteServiceVersion20100801.GetMetricData"
MOST_PAGES = 5


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query is an expression with one result, such as `SELECT SUM(requests) FROM "shop" WHERE version='$version'`."""

    http: HttpConfig
    queries: Queries
    region: str
    profile: str = ""


class Result(msgspec.Struct, frozen=True, rename="pascal"):
    """One series of the answer, newest or oldest first."""

    timestamps: list[float] = []
    values: list[float] = []
    status_code: str = "Complete"


class Answer(msgspec.Struct, frozen=True, rename="pascal"):
    """What GetMetricData says."""

    metric_data_results: list[Result]
    next_token: str | None = None


class CloudWatchStore:
    """CloudWatch of one region. See PointStore."""

    def __init__(self, client: StoreClient, config: Config) -> None:
        self._client = client
        self._config = config
        self._found: Credentials | None = None

    async def points(self, query: str, start: float, end: float, step: float) -> Points:
        """Ask for one expression; several series of it are added up. See PointStore."""
        total: dict[float, float] = {}
        token: str | None = None
        for _ in range(MOST_PAGES):
            told = await self._page(query, start, end, step, token)
            for result in told.metric_data_results:
                if result.status_code in ("InternalError", "Forbidden"):
                    raise self._client.failed(f"could not read the metric ({result.status_code})")
                for at, value in zip(result.timestamps, result.values, strict=False):
                    if math.isfinite(number(value)):
                        total[at] = total.get(at, 0.0) + value
            token = told.next_token
            if not token:
                break
        return [(at, value) for at, value in sorted(total.items()) if start <= at < end]

    def quoted(self, word: str) -> str:
        """See PointStore."""
        return backslashed(word)

    async def close(self) -> None:
        """Let go of connections. See PointStore."""
        await self._client.close()

    async def _page(self, query: str, start: float, end: float, step: float, token: str | None) -> Answer:
        period = max(1, round(step))
        body: dict[str, Any] = {
            "StartTime": int(start),
            "EndTime": int(end) + 1,
            "ScanBy": "TimestampAscending",
            "MetricDataQueries": [{"Id": "q", "Expression": query, "Period": period, "ReturnData": True}],
        }
        if token:
            body["NextToken"] = token
        content = msgspec.json.encode(body)
        headers = await asyncio.to_thread(self._signed, content)
        answer = await self._client.json("POST", "/", body=content, headers=headers)
        try:
            return msgspec.convert(answer, Answer)
        except msgspec.ValidationError as error:
            raise self._client.failed(f"answered in a shape that is not CloudWatch's: {error}") from None

    def _signed(self, content: bytes) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": TARGET}
        request = AWSRequest(method="POST", url=f"{self._config.http.url}/", data=content, headers=headers)
        try:
            SigV4Auth(self._credentials(), "monitoring", self._config.region).add_auth(request)
        except BotoCoreError as error:
            raise self._client.failed(f"cannot be asked: {error}", "log in to AWS where the worker runs") from None
        return dict(request.headers.items())

    def _credentials(self) -> Credentials:
        from botocore.session import Session

        if self._found is None:
            self._found = Session(profile=self._config.profile or None).get_credentials()
        if self._found is None:
            raise self._client.failed(
                "cannot be asked without AWS credentials", "set AWS_PROFILE, or give the worker a role"
            )
        return self._found


def open_cloudwatch(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    import botocore.auth  # noqa: F401  (an optional package: said at once that it is missing)

    config = msgspec.convert(plan.config, Config)
    store = CloudWatchStore(StoreClient(plan.name, config.http, context.secrets), config)
    return QueriedSource(config.queries, store, context.environment.name)
