from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "apps.training"

    def ready(self) -> None:
        from apps.checkpoints import needs
        from apps.kernels.search.contracts import ask_slots_by
        from apps.training import growth_metrics, metrics, performance  # noqa: F401 - register themselves
        from apps.training.checkpoint_jobs import register_jobs
        from apps.training.services.restoring import needed_to_go_on
        from apps.training.slot_contracts import slot_contract

        ask_slots_by(slot_contract)
        needs.register(needed_to_go_on)
        register_jobs()
