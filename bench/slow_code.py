"""User code that is slow for one tenant, and uses the model for the others."""

from __future__ import annotations

import time
from typing import Any

from inferd import RealtimePredictor

SLOW_TENANT = "slow"
CALL_S = 0.2


class SlowForOne(RealtimePredictor):
    """Sleeps for each request of one tenant."""

    def predict(self, model_id: str, input_data: Any) -> Any:
        if self.tenant_id == SLOW_TENANT:
            time.sleep(CALL_S)
        return super().predict(model_id, input_data)
