"""MLflow's registry webhook: a signed word that an alias was moved."""

import logging
from collections import OrderedDict
from collections.abc import Mapping

from steps.registry.webhook import (
    DELIVERY,
    LARGEST_BODY,
    REMEMBERED,
    UnsignedError,
    read_event,
    verify,
)
from steps.serving.errors import ApiError

log = logging.getLogger(__name__)


class AliasWebhook:
    """Believes deliveries that carry the secret's signature, each once.

    Args:
        secret: what the webhook was created with.
    """

    LARGEST = LARGEST_BODY  # bytes

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The registered model of which an alias was set; None for another event or a repetition.

        Raises:
            ApiError: 401 without the right signature, 400 where the body is not a delivery.
        """
        try:
            verify(self._secret, headers, body)
            event = read_event(body)
        except UnsignedError as error:
            raise ApiError(401, str(error), code="invalid_signature") from error
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_value") from error
        delivery = headers[DELIVERY]
        if delivery in self._seen:
            return None
        self._seen[delivery] = None
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return event.name if event is not None else None
